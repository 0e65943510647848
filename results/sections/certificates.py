"""What is proven: certified accuracy over the radius, and the figures of every certificate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.records.record import Record, setting_text, stack_label
from results.records.run import Run
from results.records.values import counted, number_text, value_text
from results.statistics.fronts import Front
from results.statistics.intervals import Z
from trainables.records.record import metric_to_plain
from trainables.records.value import Measured

MAX_SHOWN = 6
CERTIFIED = "certified_accuracy"
AVERAGE = "average_certified_radius"
BESIDE = ("clean_accuracy", "robust_accuracy_l2")
"""What accompanies the certificates: an attack's figure bounds them from above."""
DETAILS = (
    "certified_precision",
    "abstention_rate",
    "certification_draws",
    "certification_seconds",
)
_AT_THRESHOLD = re.compile(rf"^{CERTIFIED}_at_(\d+(?:\.\d+)?)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedCurve:
    """The certified accuracy of one trial over the L2 radius, a step function."""

    record: Record
    points: tuple[tuple[float, Measured], ...]
    """(radius, certified accuracy), the first at 0: a value holds from the radius before, which it
    does not include, up to its own."""
    beyond: Measured
    """The certified accuracy beyond the last radius: of no point at all."""

    @property
    def largest(self) -> float:
        """The largest radius that is certified of a right class."""
        return self.points[-1][0]

    def at(self, radius: float) -> Measured:
        """Return the share of points whose right class is certified at this radius at least."""
        reaching = (value for reached, value in self.points if reached >= radius)
        return next(reaching, self.beyond)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatesInfo:
    """The certified accuracy of the trials that certify something."""

    curves: tuple[CertifiedCurve, ...]
    """Members of the front first, then from high to low average certified radius."""
    total: int
    """Trials that certify a right class, drawn or not."""

    def alt(self) -> str:
        """Describe the figure in words."""
        drawn = counted(len(self.curves), "trial")
        if len(self.curves) < self.total:
            drawn += f" of {self.total:,} (members of the front and the largest mean radii first)"
        sizes = sorted({value.n for curve in self.curves for _, value in curve.points})
        span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        labels = short_labels([curve.record for curve in self.curves])
        ends = "; ".join(
            f"{label} starts at {value_text(curve.points[0][1])} and ends at "
            f"{number_text(curve.largest)}"
            for label, curve in zip(labels, self.curves, strict=True)
        )
        return (
            "Share of points whose right class is certified in an L2 ball of the radius at least, "
            f"with 95 % intervals, of {drawn} that certify anything; n = {span}. {ends}."
        )


def certificates_info(front: Front) -> CertificatesInfo | None:
    """Return the curves of the trials that certify something; None where none does.

    Those that are struck off are among them: what masks a gradient refutes no proof.
    """
    compared = (*front.records, *front.struck_off)
    curves = [curve for record in compared if (curve := certified_curve(record)) is not None]
    if not curves:
        return None
    members = {member.trial for member in front.members}
    curves.sort(key=lambda curve: (curve.record.trial not in members, -_average(curve.record)))
    return CertificatesInfo(curves=tuple(curves[:MAX_SHOWN]), total=len(curves))


def certified_curve(record: Record) -> CertifiedCurve | None:
    """Return a trial's curve from the radii of its points; None where no right class is
    certified.
    """
    notes = record.certification
    if notes is None:
        return None
    pairs = zip(notes.radii, notes.right, strict=True)
    reached = sorted(radius for radius, right in pairs if right and radius > 0)
    if not reached:
        return None
    n = len(notes.radii)
    points = [(0.0, share(len(reached), n))]
    for place, radius in enumerate(reached):
        if radius > points[-1][0]:
            points.append((radius, share(len(reached) - place, n)))
    return CertifiedCurve(record=record, points=tuple(points), beyond=share(0, n))


def share(count: int, n: int) -> Measured:
    """Return the share `count` of `n` items with its 95 % Wilson score interval (Wilson, 1927)."""
    value, weight = count / n, Z * Z / n
    centre = (value + weight / 2) / (1 + weight)
    half = math.sqrt(value * (1 - value) * weight + weight * weight / 4) / (1 + weight)
    # At 0 and at n the interval ends there, which rounding may miss.
    low = 0.0 if count == 0 else centre - half
    high = 1.0 if count == n else centre + half
    return Measured(value, low, high, n)


def certifying(run: Run) -> tuple[Record, ...]:
    """Return the usable trials whose model certifies, from large to small mean radius."""
    found = [
        record
        for record in run.usable
        if record.certification and record.certification.failure_probability is not None
    ]
    return tuple(sorted(found, key=_average, reverse=True))


def certificate_columns(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the metrics of the table: besides the certificates, certified at each threshold,
    more.
    """
    measured = {name for record in records for name in record.metrics}
    thresholds = sorted(
        (name for name in measured if _AT_THRESHOLD.match(name)),
        key=lambda name: float(name.rpartition("_")[2]),
    )
    ordered = (*BESIDE, CERTIFIED, *thresholds, AVERAGE, *DETAILS)
    return tuple(name for name in ordered if name in measured)


def confidence_text(record: Record) -> str:
    """Write the probability with which the certificate of an image holds, such as `99.9 %`."""
    notes = record.certification
    if notes is None or notes.failure_probability is None:
        return "not recorded"
    return f"{100 * (1 - notes.failure_probability):.6g} %"


def short_labels(records: Sequence[Record]) -> list[str]:
    """Name trials by the settings in which they differ, as `4f1c99a0  pixeldp(attack_bound=0.3)`.

    A setting counts where two of the trials that have the defense set it to different values.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for defense in (defense for record in records for defense in record.stack):
        for name, value in defense.items():
            seen.setdefault((str(defense["name"]), name), set()).add(setting_text(value))
    return [
        f"{record.trial[:8]}  "
        + stack_label(
            [
                {
                    name: value
                    for name, value in defense.items()
                    if name == "name" or len(seen[str(defense["name"]), name]) > 1
                }
                for defense in record.stack
            ]
        )
        for record in records
    ]


def plain_certificates(
    info: CertificatesInfo | None, records: Sequence[Record]
) -> list[dict[str, Any]]:
    """Return every trial that certifies as plain JSON, with its curve where it is
    drawn.
    """
    curves = {curve.record.trial: curve for curve in info.curves} if info else {}
    names = certificate_columns(records)
    return [
        {
            "trial": record.trial,
            "defense": record.label,
            "norm": "l2",
            "failure_probability": record.certification.failure_probability,
            "metrics": {
                name: metric_to_plain(value) if (value := record.value(name)) else None
                for name in names
            },
            "curve": [
                {"radius": radius, **metric_to_plain(value)}
                for radius, value in curves[record.trial].points
            ]
            if record.trial in curves
            else None,
        }
        for record in records
        if record.certification is not None
    ]


def _average(record: Record) -> float:
    value = record.value(AVERAGE)
    return value.value if value is not None else 0.0
