"""Which attacks an audit covers: what a verdict rests on follows from the run's threats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from results.records.record import Record

EVASION = "evasion"
ATTACKS: Mapping[str, str] = {
    EVASION: "robust_accuracy",
    "backdoor": "backdoor_success_rate",
    "membership": "membership_auc",
    "inversion": "inversion_accuracy",
}
"""Threat that attacks a model -> the metric that stands for it."""
_PROVEN = "certified_accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How one candidate was attacked."""

    attacked: tuple[str, ...]
    """The threats of `ATTACKS` that at least one seed was measured against."""
    spared: Mapping[str, str]
    """The other threats of `ATTACKS` -> why; empty where the audit gives no reason."""
    lacking: tuple[str, ...]
    """Of the spared, those that the run's threats demand."""
    proven: bool
    """Whether certificates were measured."""

    def text(self) -> str:
        """Write what attacked the candidate, and what did not."""
        parts = [f"attacked by: {', '.join(self.attacked)}"] if self.attacked else []
        if self.proven and not self.attacked:
            parts.append("certificates were measured")
        if self.spared:
            parts.append(f"not attacked by: {self.why_not(self.spared)}")
        return "; ".join(parts)

    def why_not(self, threats: Iterable[str]) -> str:
        """Name spared threats, each with the reason that the audit gives."""
        return ", ".join(f"{n} ({self.spared[n]})" if self.spared[n] else n for n in threats)


def coverage(records: Sequence[Record], others: Sequence[Record]) -> Coverage:
    """Return how the seeds of a candidate were attacked; `others` are all records of the audit.

    Demanded are the run's threats, but for one that no candidate of the same data could be measured
    against: that is the data's doing, as where a class is too small to be poisoned. No data rules
    evasion out.
    """
    asked = {str(row["name"]) for record in records for row in record.spec.get("threats", ())}
    data = [record.spec.get("data") for record in records]
    same = [other for other in others if other.spec.get("data") in data]
    attacked = tuple(name for name in ATTACKS if _measured(records, name))
    spared = {n: _reason(records, metric) for n, metric in ATTACKS.items() if n not in attacked}
    return Coverage(
        attacked=attacked,
        spared=spared,
        lacking=tuple(
            name for name in spared if name in asked and (name == EVASION or _measured(same, name))
        ),
        proven=any(record.value(_PROVEN) is not None for record in records),
    )


def _reason(records: Sequence[Record], metric: str) -> str:
    found = (record.reason(metric) for record in records)
    return next((reason for reason in found if reason is not None), "")


def _measured(records: Sequence[Record], threat: str) -> bool:
    if threat == EVASION:
        return any(record.evasion.adaptive is not None for record in records)
    return any(record.value(ATTACKS[threat]) is not None for record in records)
