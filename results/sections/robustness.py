"""Robust accuracy over the radius, which attack broke the points, and what detectors find."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from results.records.evasion_notes import UNATTACKED, WITHSTOOD
from results.records.record import Record
from results.records.run import Run
from results.records.values import counted, value_text
from results.statistics.fronts import CLEAN, Front
from trainables.records.value import Measured

MAX_SHOWN = 6
ROBUST = "robust_accuracy"
UNBOUNDED = "robust_accuracy_unbounded"
DETECTION = (
    "detection_auroc",
    "detection_tpr_at_fpr_0_05",
    "undetected_success_rate",
    "clean_rejection_rate",
)
_LABEL = 80
"""Characters of a trial's label for which a legend has room."""
_AT_MULTIPLE = re.compile(r"^robust_accuracy_at_radius_(\d+(?:_\d+)?)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessCurve:
    """The robust accuracy of one trial over the radius."""

    record: Record
    points: tuple[tuple[float, Measured], ...]
    """(multiple of the standard radius, robust accuracy), from small to large; at 0 the clean
    accuracy."""
    unbounded: Measured | None
    """In the ball that holds every image; None where it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessInfo:
    """The curves of the undefended trial and of members of a front."""

    curves: tuple[RobustnessCurve, ...]
    """The undefended first, then from low to high robust accuracy."""
    members: int
    """Defended trials on the front, drawn or not."""
    title: str
    """What the front is over."""
    radius: float | None
    """The standard radius in pixel units; None where the run has several data sets."""

    def alt(self) -> str:
        """Describe the figure in words."""
        plain = [curve for curve in self.curves if not curve.record.stack]
        drawn = len(self.curves) - len(plain)
        front = f"{counted(self.members, 'defended trial')} on the front over {self.title}"
        whose = f"{drawn} of {front}"
        if drawn < self.members:
            whose += " (spread evenly over robust accuracy)"
        if plain:
            whose = f"the undefended trial and of {whose}" if drawn else "the undefended trial"
        return (
            f"Robust accuracy over the radius of the Linf ball, with 95 % intervals, of {whose}; "
            f"{self._sizes()}. At 0 it is the clean accuracy; at other multiples than 1 fewer "
            f"attacks run. {self._unbounded()}"
        )

    def _sizes(self) -> str:
        attacked = [v.n for curve in self.curves for multiple, v in curve.points if multiple > 0]
        clean = [v.n for curve in self.curves for multiple, v in curve.points if multiple == 0]
        words = f"n = {_span(attacked)}"
        return f"{words} (clean accuracy: {_span(clean)})" if clean else words

    def _unbounded(self) -> str:
        """Return where the attacks fail although nothing bounds them."""
        known = [(c.record, c.unbounded) for c in self.curves if c.unbounded is not None]
        if not known:
            return "The ball that holds every image, in which it must reach 0, was not measured."
        above = [
            f"{record.label} (trial {record.trial[:10]}): {value_text(value)}"
            for record, value in known
            if value.value > 0
        ]
        lacking = len(self.curves) - len(known)
        tail = f" It was not measured for {counted(lacking, 'trial')}." if lacking else ""
        ball = "In the ball that holds every image (not drawn) it must reach 0"
        if not above:
            return f"{ball}, and it does.{tail}"
        return f"{ball}, or the attack is at fault. It does not for {'; '.join(above)}.{tail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenBy:
    """Which attack was the first to break how many points, for some trials."""

    attacks: tuple[str, ...]
    """The most successful first."""
    rows: tuple[Record, ...]

    def count(self, record: Record, name: str) -> int:
        """Return the points of a trial that an attack was the first to break."""
        return record.evasion.broken_by.get(name, 0)

    def points(self, record: Record) -> int:
        """Return the points of a trial."""
        return sum(record.evasion.broken_by.values())

    def unattacked(self, record: Record) -> int:
        """Return the points that are wrong, or rejected, without any attack."""
        return self.count(record, UNATTACKED)

    def withstood(self, record: Record) -> int:
        """Return the points that no attack broke."""
        return self.count(record, WITHSTOOD)


def shown_trials(front: Front) -> tuple[Record, ...]:
    """Choose whose robustness is shown: the undefended trial first, then members of the front.

    Of more than MAX_SHOWN members those that are spread evenly over robust accuracy, both ends
    among them.
    """
    compared = (*front.records, *front.struck_off)
    plain = next((record for record in compared if not record.stack), None)
    members = [m for m in front.members if m.stack and m.value(ROBUST) is not None]
    members.sort(key=_robust)
    if len(members) > MAX_SHOWN:
        step = (len(members) - 1) / (MAX_SHOWN - 1)
        members = [members[round(place * step)] for place in range(MAX_SHOWN)]
    return (*([plain] if plain else []), *members)


def robustness_info(front: Front, radius: float | None) -> RobustnessInfo | None:
    """Return the curves of the shown trials; None where none has one."""
    curves = tuple(
        curve for record in shown_trials(front) if (curve := robustness_curve(record)) is not None
    )
    if not curves:
        return None
    members = sum(bool(member.stack) for member in front.members)
    return RobustnessInfo(curves=curves, members=members, title=front.title, radius=radius)


def robustness_curve(record: Record) -> RobustnessCurve | None:
    """Return a trial's curve; None where no radius besides the standard one was measured."""
    points = {}
    for name, value in record.measured.items():
        match = _AT_MULTIPLE.match(name)
        if match:
            points[float(match[1].replace("_", "."))] = value
    if not points:
        return None
    for multiple, name in ((0.0, CLEAN), (1.0, ROBUST)):
        if (known := record.value(name)) is not None:
            points[multiple] = known
    return RobustnessCurve(
        record=record, points=tuple(sorted(points.items())), unbounded=record.value(UNBOUNDED)
    )


def curve_label(record: Record) -> str:
    """Return the legend entry of a curve."""
    if not record.stack:
        return "undefended"
    label = record.label
    if len(label) > _LABEL:
        label = f"{label[: _LABEL - 1]}…"
    return f"{record.trial[:8]}  {label}"


def broken_by(front: Front) -> BrokenBy | None:
    """Count which attack broke the points of the shown trials; None where none recorded it."""
    rows = tuple(record for record in shown_trials(front) if record.evasion.broken_by)
    if not rows:
        return None
    total: Counter[str] = Counter()
    for record in rows:
        total.update(record.evasion.broken_by)
    attacks = [name for name, _ in total.most_common() if name not in (UNATTACKED, WITHSTOOD)]
    return BrokenBy(attacks=tuple(attacks), rows=rows)


def rejecting(run: Run) -> tuple[Record, ...]:
    """Return the usable trials whose model may reject an image, where detection was measured."""
    return tuple(
        record
        for record in run.usable
        if record.rejects and any(record.value(name) is not None for name in DETECTION)
    )


def _robust(record: Record) -> float:
    value = record.value(ROBUST)
    assert value is not None
    return value.value


def _span(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
