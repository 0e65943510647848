"""Every pair of verified candidates: which differ significantly, and in which objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from results.audit.audit import VERIFIED, Audited
from results.records.run import Run
from results.statistics.paired import Comparison, compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two verified candidates."""

    first: Audited
    second: Audited
    by_metric: Mapping[str, Comparison]
    """Objective -> the first minus the second; one that either lacks is not there."""

    @property
    def told_apart(self) -> bool:
        """Whether they differ significantly in any objective."""
        return any(each.told_apart for each in self.by_metric.values())


def pairs(run: Run, candidates: Sequence[Audited]) -> tuple[Pair, ...]:
    """Return every two verified candidates, on the same test points where the audit kept them."""
    verified = [each for each in candidates if each.verdict == VERIFIED]
    names = [objective.metric for objective in run.objectives]
    return tuple(
        Pair(
            first=first,
            second=second,
            by_metric={
                name: found for name in names if (found := compare(first, second, name)) is not None
            },
        )
        for first, second in combinations(verified, 2)
    )


def plain_pairs(found: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the pairs as plain JSON values."""
    return [
        {
            "first": pair.first.trial,
            "second": pair.second.trial,
            "told_apart": pair.told_apart,
            "metrics": {name: asdict(each) for name, each in pair.by_metric.items()},
        }
        for pair in found
    ]
