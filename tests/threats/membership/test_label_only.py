"""How often the attack by labels alone may ask."""

import pytest

from trainables.threats.membership.label_only import affordable


@pytest.mark.parametrize(
    ("effort", "passes", "points", "copies", "asked"),
    [
        ("screen", 1, 1167, 4, 7500),
        ("audit", 1, 1167, 32, 9375),
        ("screen", 300, 1167, 1, 100),
        ("audit", 300, 1167, 1, 1000),
        ("screen", 1, 10_000, 4, 7500),
        ("screen", 1, 1_000_000, 1, 30_000),
    ],
)
def test_dear_predictors_are_asked_less(
    effort: str, passes: int, points: int, copies: int, asked: int
) -> None:
    work = affordable(effort, passes, points)
    assert (work.copies, work.points) == (copies, asked)
