"""Points of a front that do not differ significantly, merged into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from results.audit.audit import Audited
from results.statistics.paired import compare as compare_paired

Point = TypeVar("Point")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Generic[Point]):
    """A point, and those that do not differ significantly from it."""

    first: Point
    others: tuple[Point, ...]


def merged(points: Sequence[Point], alike: Callable[[Point, Point], bool]) -> list[Group[Point]]:
    """Merge points, the best first: each joins the first group whose own first is like it.

    Likeness does not pass from point to point; so a group is what is like its first, and
    the order decides which points are the firsts.
    """
    firsts: list[Point] = []
    others: list[list[Point]] = []
    for point in points:
        place = next((i for i, first in enumerate(firsts) if alike(first, point)), None)
        if place is None:
            firsts.append(point)
            others.append([])
        else:
            others[place].append(point)
    return [
        Group(first=first, others=tuple(rest)) for first, rest in zip(firsts, others, strict=True)
    ]


def merged_audited(candidates: Sequence[Audited], metrics: Sequence[str]) -> list[Group[Audited]]:
    """Merge audited candidates that differ in none of the metrics beyond the (paired) intervals.

    The undefended model stays by itself, and so does what lacks a metric.
    """

    def alike(first: Audited, second: Audited) -> bool:
        if first.undefended != second.undefended:
            return False
        found = [compare_paired(first, second, metric) for metric in metrics]
        return all(each is not None and not each.told_apart for each in found)

    return merged(candidates, alike)
