"""What each figure shows, computed: no drawing here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.records.record import UNDEFENDED_LABEL, Record
from results.records.values import counted, number_text
from results.statistics.effects import STRUCK_OFF, Effect
from results.statistics.fronts import Front
from trainables.records.value import Measured

MAX_CURVES = 8
MOST_INTERVALS = 500
"""Trials of a plane whose intervals are drawn; of more, those of the front alone."""
MAX_EFFECTS = 30
# How far below the best x a trial may lie and still be in the frame of a plane.
FRAME_DEPTH = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """One trial in the plane of clean accuracy (x) and another objective (y)."""

    x: Measured
    y: Measured
    family: str
    on_front: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The part of a plane that is drawn."""

    x: tuple[float, float]
    y: tuple[float, float]
    floor: float
    """No trial with a lower x is in the frame."""
    outside: int
    """Trials left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoInfo:
    """A front of two objectives."""

    x_label: str
    y_label: str
    points: tuple[ParetoPoint, ...]
    families: tuple[str, ...]
    """The undefended first, then by name, stacks last."""
    struck_off: tuple[ParetoPoint, ...] = ()
    """Trials whose robust accuracy cannot be trusted; on no front."""
    frame: Frame | None = None
    """None where every trial is near enough to the best to be drawn."""

    @property
    def dense(self) -> bool:
        """Whether there are too many trials to draw each with its intervals."""
        return len(self.points) + len(self.struck_off) > MOST_INTERVALS

    def alt(self) -> str:
        """Describe the figure in words."""
        whose = " (drawn on the front alone)" if self.dense else ""
        return (
            f"{counted(len(self.points), 'trial')}, {self.y_label} over {self.x_label}, with 95 % "
            f"intervals{whose}. {self._on_front()}{self._struck()}{self._outside()}"
        )

    def _on_front(self) -> str:
        on = [point for point in self.points if point.on_front]
        if not on:
            return "None is on the front."
        ends = [min(on, key=lambda p: p.x.value), max(on, key=lambda p: p.x.value)]
        span = " to ".join(f"({number_text(p.x.value)}, {number_text(p.y.value)})" for p in ends)
        return f"{len(on)} on the front, from {span}."

    def _struck(self) -> str:
        """Return how many trials are drawn that do not count."""
        count = len(self.struck_off)
        return f" Crosses: {counted(count, 'trial')} struck off, on no front." if count else ""

    def _outside(self) -> str:
        """Return how many trials the frame leaves out, and where they are."""
        if self.frame is None:
            return ""
        count = self.frame.outside
        return (
            f" {counted(count, 'trial')} {'lies' if count == 1 else 'lie'} outside of the frame, "
            f"below {number_text(self.frame.floor)} on the horizontal axis."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HypervolumeInfo:
    """The hypervolume after each finished trial."""

    volumes: tuple[float, ...]
    objectives: str

    def alt(self) -> str:
        """Describe the figure in words."""
        return (
            f"Hypervolume over {self.objectives}: {number_text(self.volumes[0])} after the first, "
            f"{number_text(self.volumes[-1])} after {counted(len(self.volumes), 'trial')}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The learning curves of one trial."""

    label: str
    losses: tuple[tuple[float, ...], tuple[float, ...]]
    """Training, validation; per epoch, empty where not recorded."""
    accuracies: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvesInfo:
    """The learning curves of members of a front."""

    curves: tuple[Curve, ...]
    members: int
    """On the front, drawn or not."""

    def alt(self) -> str:
        """Describe the figure in words."""
        return (
            f"Loss and accuracy over epochs, training and validation, of {len(self.curves)} of "
            f"{counted(self.members, 'front member')}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectsInfo:
    """Differences to undefended: per objective, per defense."""

    metrics: tuple[tuple[str, bool], ...]
    """(objective, whether more is better)."""
    rows: tuple[Effect, ...]
    total: int

    def alt(self) -> str:
        """Describe the figure in words."""
        return (
            f"Difference to the undefended model with its 95 % interval, in "
            f"{counted(len(self.metrics), 'objective')}, for {len(self.rows)} of "
            f"{counted(self.total, 'single defense')}.{self._struck()}"
        )

    def _struck(self) -> str:
        """Return what the crosses mean, where there are any."""
        verdicts = {change.verdict for effect in self.rows for change in effect.changes}
        if STRUCK_OFF not in verdicts:
            return ""
        return " Crosses: looks better, but the trial is struck off."


def pareto_info(front: Front) -> ParetoInfo | None:
    """Return the plane of a front of two objectives, clean accuracy first; None where it is
    empty.
    """
    if not front.records and not front.struck_off:
        return None
    x_metric, y_metric = front.objectives
    points = [
        _point(record, front, on) for record, on in zip(front.records, front.on_front, strict=True)
    ]
    struck = [_point(record, front, False) for record in front.struck_off]
    names = {point.family for point in points}
    return ParetoInfo(
        x_label=_axis(x_metric.metric, x_metric.maximized),
        y_label=_axis(y_metric.metric, y_metric.maximized),
        points=tuple(points),
        families=tuple(sorted(names, key=_family_order)),
        struck_off=tuple(struck),
        frame=_frame([*points, *struck]) if x_metric.maximized else None,
    )


def hypervolume_info(front: Front) -> HypervolumeInfo | None:
    """Return the history of a front's hypervolume; None where it has none."""
    if not front.hypervolumes:
        return None
    return HypervolumeInfo(volumes=front.hypervolumes, objectives=front.title)


def curves_info(front: Front) -> CurvesInfo | None:
    """Return the curves of the first members that recorded any; None where none did."""
    recorded = [member for member in front.members if any(member.own.curves.values())]
    if not recorded:
        return None
    curves = []
    for member in recorded[:MAX_CURVES]:
        kept = member.own.curves
        train, held = (
            tuple(tuple(kept.get(f"{pool}_{what}", ())) for what in ("loss", "accuracy"))
            for pool in ("train", "validation")
        )
        curves.append(
            Curve(
                label=f"{member.trial[:8]}  {_shorten(member.label)}",
                losses=(train[0], held[0]),
                accuracies=(train[1], held[1]),
            )
        )
    return CurvesInfo(curves=tuple(curves), members=len(front.members))


def effects_info(effects: Sequence[Effect], front: Front) -> EffectsInfo | None:
    """Choose the effects that are drawn: all, or of each defense as many as there is room for."""
    if not effects:
        return None
    rows = list(effects)
    each = MAX_EFFECTS + 1
    while len(rows) > MAX_EFFECTS and each > 1:
        each -= 1
        seen: dict[str, int] = {}
        rows = []
        for effect in effects:
            name = str(effect.record.stack[0]["name"])
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= each:
                rows.append(effect)
    return EffectsInfo(
        metrics=tuple((each_.metric, each_.maximized) for each_ in front.objectives),
        rows=tuple(rows),
        total=len(effects),
    )


def family(record: Record) -> str:
    """Return the legend entry of a trial: its defense's name, or how many are stacked."""
    if not record.stack:
        return UNDEFENDED_LABEL
    return (
        str(record.stack[0]["name"]) if len(record.stack) == 1 else f"stack of {len(record.stack)}"
    )


def effect_label(effect: Effect) -> str:
    """Return the row label of an effect, in full."""
    return f"{effect.record.label}{' [struck off]' if effect.is_struck_off else ''}"


def _point(record: Record, front: Front, on_front: bool) -> ParetoPoint:
    x, y = (record.value(objective.metric) for objective in front.objectives)
    assert x is not None and y is not None
    return ParetoPoint(x=x, y=y, family=family(record), on_front=on_front)


def _frame(points: Sequence[ParetoPoint]) -> Frame | None:
    """Leave out collapsed trials, far below the best x; None where there are none.

    The undefended are never left out: the others are compared with them.
    """
    floor = min(
        [max(point.x.value for point in points) - FRAME_DEPTH]
        + [point.x.value for point in points if point.family == UNDEFENDED_LABEL]
    )
    near = [point for point in points if point.x.value >= floor]
    if len(near) == len(points):
        return None
    return Frame(
        x=_padded(min(p.x.value for p in near), max(p.x.high for p in near)),
        y=_padded(min(p.y.low for p in near), max(p.y.high for p in near)),
        floor=floor,
        outside=len(points) - len(near),
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin


def is_stack(name: str) -> bool:
    """Return whether a legend entry is that of stacks."""
    return name.startswith("stack of ")


def _family_order(name: str) -> tuple[int, str]:
    return (0 if name == UNDEFENDED_LABEL else 2 if is_stack(name) else 1, name)


def _axis(metric: str, maximized: bool) -> str:
    return f"{metric} ({'higher' if maximized else 'lower'} is better)"


def _shorten(label: str, limit: int = 64) -> str:
    return label if len(label) <= limit else f"{label[: limit - 1]}…"
