"""How the suite shares two cores: each worker takes whole files, and the tests on Ray come last.

A Ray of a test's own takes all cores. Beside other tests it would be slow, and tests that kill
processes at certain moments would find other moments.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

_ON_RAY = ("tests/orchestrator/", "tests/trial/test_limits.py")


def ray_last(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Order tests so that those on Ray come last, else as they were."""
    return sorted(items, key=lambda item: on_ray(item.nodeid))


def on_ray(nodeid: str) -> bool:
    """Return whether a test starts a Ray, or times what others would slow down."""
    return nodeid.startswith(_ON_RAY)


class WholeFiles(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker a file at a time, in their order, and all tests on Ray to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        return "on Ray" if on_ray(nodeid) else nodeid.split("::")[0]
