"""Published figures and ours, cell by cell, and the verdict on each published claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from results.records.record import Record, first_reason, setting_text
from results.records.run import Run
from results.records.values import value_text
from results.statistics.effects import pooled
from results.statistics.intervals import HIGHER, LOWER, Order, difference, side
from trainables.records.value import Measured

HOLDS, FAILS, UNTOLD = "holds", "fails", "cannot be told"
_EXPECTED: Mapping[str, Order] = {
    "falls": LOWER, "rises": HIGHER, "above": HIGHER, "below": LOWER
}  # fmt: skip
_OPPOSITE: Mapping[Order, Order] = {LOWER: HIGHER, HIGHER: LOWER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One published figure and ours."""

    row: str
    label: str
    metric: str
    published: float | None
    """None: no figure was published; ours stands alone."""
    ours: Measured | None
    """Pooled over the seeds."""
    seeds: int
    reason: str
    """Why there is no figure of ours; else empty."""

    @property
    def within(self) -> bool | None:
        """Whether the published figure lies in our interval; None where one of them lacks."""
        if self.published is None or self.ours is None:
            return None
        return self.ours.low <= self.published <= self.ours.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A published sentence and what our intervals say of it."""

    text: str
    verdict: str
    because: str
    """The interval that decides, or why nothing can be decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a published figure."""

    x: float
    ours: Measured | None
    published: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A published figure, redrawn: series of (label, points)."""

    title: str
    x_label: str
    y_label: str
    series: tuple[tuple[str, tuple[Point, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """A published table and ours."""

    table: str
    source: str
    data: str
    """The data set that ours was measured on."""
    not_disclosed: tuple[str, ...]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    figures: tuple[PublishedFigure, ...]

    @property
    def agreement(self) -> str:
        """How many published figures lie in our intervals, in words."""
        compared = [cell.within for cell in self.cells if cell.within is not None]
        if all(cell.published is None for cell in self.cells):
            return "The document prints no figures to compare with."
        if not compared:
            return "No published figure can be compared: none of its rows has run."
        return (
            f"{sum(compared)} of {len(compared)} published figures lie within our 95 % intervals."
        )


def compare_published(run: Run) -> PublishedTable:
    """Compare a reproduction's figures with the published ones.

    Only completed trials that are not stale count; the seeds of a row are pooled. ValueError where
    the run reproduces no published table.
    """
    published = run.manifest.get("published")
    if not published:
        raise ValueError(f"run {run.name} reproduces no published table")
    cells = tuple(cell for row in published["rows"] for cell in _row(run, row))
    by_place = {(cell.row, cell.metric): cell for cell in cells}
    return PublishedTable(
        table=published["table"],
        source=published["source"],
        data=_data(run),
        not_disclosed=tuple(published.get("not_disclosed", ())),
        cells=cells,
        claims=tuple(_claim(claim, by_place) for claim in published.get("claims", ())),
        figures=tuple(_figure(figure, by_place) for figure in published.get("figures", ())),
    )


def same_settings(asked: Any, found: Any) -> bool:
    """Return whether two canonical settings agree; numbers up to a relative 1e-9."""
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        return asked.keys() == found.keys() and all(
            same_settings(value, found[name]) for name, value in asked.items()
        )
    if isinstance(asked, list | tuple) and isinstance(found, list | tuple):
        return len(asked) == len(found) and all(map(same_settings, asked, found))
    numbers = [
        isinstance(each, int | float) and not isinstance(each, bool) for each in (asked, found)
    ]
    if all(numbers):
        return math.isclose(asked, found, rel_tol=1e-9, abs_tol=1e-12)
    return type(asked) is type(found) and bool(asked == found)


def _row(run: Run, row: Mapping[str, Any]) -> list[Cell]:
    matching = [record for record in run.records if _matches(row, record)]
    usable = [record for record in matching if record.usable]
    specs = {record.without_seed() for record in usable}
    reason = ""
    if not usable:
        states = sorted({"stale" if r.stale else r.status for r in matching})
        reason = f"row not run to its end: {', '.join(states)}" if states else "row not run"
    elif len(specs) > 1:
        reason = f"{len(specs)} different specs match this row; it must name what they differ in"
        usable = []
    return [
        _cell(run, row, metric, published, usable, reason)
        for metric, published in row["cells"].items()
    ]


def _cell(
    run: Run,
    row: Mapping[str, Any],
    metric: str,
    published: float | None,
    records: Sequence[Record],
    reason: str,
) -> Cell:
    ours = pooled(run, records, metric)
    if ours is None and not reason:
        reason = first_reason(records, metric)
    return Cell(
        row=row["name"],
        label=row.get("label") or row["name"],
        metric=metric,
        published=published,
        ours=ours,
        seeds=sum(record.value(metric) is not None for record in records),
        reason=reason,
    )


def _matches(row: Mapping[str, Any], record: Record) -> bool:
    """Return whether the stack is the row's, and every part of the spec that the row names
    agrees.
    """
    if not same_settings(list(row["stack"]), list(record.stack)):
        return False
    return all(
        name in (record.spec.get(part) or {}) and same_settings(value, record.spec[part][name])
        for part in ("data", "model", "training")
        for name, value in (row.get(part) or {}).items()
    )


def _claim(claim: Mapping[str, Any], cells: Mapping[tuple[str, str], Cell]) -> Claim:
    expect, text = claim["expect"], str(claim["text"])
    if expect == "unanswered":
        return Claim(text=text, verdict=UNTOLD, because=claim.get("why") or "no reason given")
    named: list[tuple[str, Measured]] = []
    for row, metric in claim["cells"]:
        cell = cells.get((row, metric))
        if cell is None or cell.ours is None:
            why = "row not run" if cell is None else cell.reason
            return Claim(text=text, verdict=UNTOLD, because=f"{why} ({row}, {metric})")
        named.append((f"{cell.label}, {metric}", cell.ours))
    if expect in ("above", "below"):
        threshold = float(claim["value"])
        checks = named
    else:
        threshold = 0.0
        checks = [
            (f"{later[0]} minus {earlier[0]}", difference(later[1], earlier[1]))
            for earlier, later in pairwise(named)
        ]
    verdict, because = _verdict(checks, _EXPECTED[expect], threshold)
    return Claim(text=text, verdict=verdict, because=because)


def _verdict(
    checks: Sequence[tuple[str, Measured]], expected: Order, threshold: float
) -> tuple[str, str]:
    """Return the verdict on intervals that should all lie on one side, and the one that decides."""
    if not checks:
        return UNTOLD, "there is nothing to compare"
    sides = [side(value, threshold) for _, value in checks]
    margins = [abs(value.value - threshold) for _, value in checks]
    if _OPPOSITE[expected] in sides:
        verdict, place = FAILS, sides.index(_OPPOSITE[expected])
    elif any(each != expected for each in sides):
        verdict = UNTOLD
        place = next(place for place, each in enumerate(sides) if each != expected)
    else:
        verdict, place = HOLDS, margins.index(min(margins))
    name, value = checks[place]
    return verdict, f"{name}: {value_text(value)} against {threshold:g}"


def _figure(figure: Mapping[str, Any], cells: Mapping[tuple[str, str], Cell]) -> PublishedFigure:
    series = []
    for line in figure["series"]:
        points = []
        for x, row, metric in line["points"]:
            cell = cells.get((row, metric))
            points.append(
                Point(
                    x=float(x),
                    ours=cell.ours if cell else None,
                    published=cell.published if cell else None,
                )
            )
        series.append((str(line["label"]), tuple(sorted(points, key=lambda point: point.x))))
    return PublishedFigure(
        title=figure["title"],
        x_label=figure["x_label"],
        y_label=figure["y_label"],
        series=tuple(series),
    )


def _data(run: Run) -> str:
    """Name the data set and how much of it was used."""
    title = str(run.manifest.get("data_title") or "")
    used: dict[str, None] = {}
    for record in run.usable:
        data = record.spec.get("data") or {}
        title = title or str(data.get("name", ""))
        parts = [
            f"{data.get('pools', '?')} pools",
            f"training images: {_images(data.get('train_images'))}",
            f"measured images: {_images(data.get('measured_images'))}",
        ]
        used[", ".join(parts)] = None
    return f"{title or 'unknown'} ({'; '.join(used)})" if used else title or "unknown"


def _images(count: int | None) -> str:
    return "all" if count is None else setting_text(count)
