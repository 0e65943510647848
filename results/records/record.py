"""One trial's record as results knows it, and what its stack is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from results.records.certification_notes import CertificationNotes, certification_notes
from results.records.evasion_notes import EvasionNotes, evasion_notes
from results.records.poisoning_notes import PoisoningNotes, poisoning_notes
from results.records.privacy_notes import PrivacyNotes, privacy_notes
from trainables.records.record import TrialRecord
from trainables.records.value import Measured, MetricValue, Missing

UNDEFENDED_LABEL = "none"
"""Label of a stack in which nothing defends."""
MASKING = "masking_suspected"
MASKED = "masking suspected"
NOT_ADAPTIVE = "not attacked adaptively"
_POINTS = "points"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A trial's record as it is shown: what its notes say is read, and its stack has a name."""

    own: TrialRecord
    """The record without its notes, which are its bulk: those that matter here are below."""
    label: str
    """The stack in words; "none" where nothing defends."""
    stale_stages: tuple[str, ...]
    """Stages that ran in another version than the manifest names."""
    evasion: EvasionNotes
    certification: CertificationNotes | None
    """None where certificates were not measured."""
    privacy: PrivacyNotes
    poisoning: PoisoningNotes | None
    """None where nothing was poisoned."""
    outcomes: Mapping[str, str]
    """Metric -> "1" or "0" for each of its points: right (clean_accuracy), robust
    (robust_accuracy); empty where they were not kept. Strings of one length in the records of one
    scenario are of the same points in the same order."""

    @staticmethod
    def of(record: TrialRecord, versions: Mapping[str, int]) -> Record:
        """Read a record's notes; `versions` are those of the run's stages.

        Where the notes have another shape, it raises as for any bad JSON.
        """
        notes = record.notes
        return Record(
            own=replace(record, notes={}),
            label=stack_label(record.spec["stack"]),
            stale_stages=tuple(
                stage
                for stage, version in record.stage_versions.items()
                if versions.get(stage, version) != version
            ),
            evasion=evasion_notes(notes),
            certification=certification_notes(notes),
            privacy=privacy_notes(notes),
            poisoning=poisoning_notes(notes),
            outcomes=_outcomes(notes),
        )

    @property
    def trial(self) -> str:
        """The trial's identity."""
        return self.own.trial

    @property
    def status(self) -> str:
        """How the trial ended."""
        return self.own.status

    @property
    def error(self) -> str | None:
        """What it failed of."""
        return self.own.error

    @property
    def spec(self) -> Mapping[str, Any]:
        """The canonical spec."""
        return self.own.spec

    @property
    def stack(self) -> Sequence[Mapping[str, Any]]:
        """Defenses in the order of the spec, each {"name": .., parameter: value}."""
        stack: Sequence[Mapping[str, Any]] = self.own.spec["stack"]
        return stack

    @property
    def metrics(self) -> Mapping[str, MetricValue]:
        """Every metric, measured or missing."""
        return self.own.metrics

    @property
    def measured(self) -> dict[str, Measured]:
        """The metrics that have a value."""
        metrics = self.own.metrics
        return {name: value for name, value in metrics.items() if isinstance(value, Measured)}

    @property
    def stale(self) -> bool:
        """Whether a stage ran in another version than the run's own."""
        return bool(self.stale_stages)

    @property
    def usable(self) -> bool:
        """Whether its figures count: completed and not stale."""
        return self.status == "completed" and not self.stale

    @property
    def masking(self) -> str:
        """Why its robust accuracy may only look high, in words; empty where no sign shows."""
        flag = self.value(MASKING)
        if self.evasion.suspected or (flag is not None and flag.value >= 0.5):
            return self.evasion.masking or "the record does not say which sign"
        return ""

    @property
    def why_struck_off(self) -> str:
        """Why it may be on no front and best at nothing, in words; empty where it may."""
        struck = self.masking and self.evasion.strikes
        reasons = [f"{MASKED}: {self.masking}"] if struck else []
        if self.evasion.adaptive is False:
            because = "; ".join(self.evasion.not_adaptive_because)
            reasons.append(f"{NOT_ADAPTIVE}: {because or 'the record does not say why'}")
        return ". ".join(reasons)

    @property
    def rejects(self) -> bool:
        """Whether the deployed model may reject an image, as far as the record shows."""
        if self.evasion.rejects is not None:
            return self.evasion.rejects
        rejected = self.value("clean_rejection_rate")
        return (
            self.evasion.detector_aware
            or self.value("detection_auroc") is not None
            or (rejected is not None and rejected.value > 0)
        )

    @property
    def not_comparable(self) -> str:
        """Why RobustBench would not list its robust accuracy; empty where it would."""
        kinds = [
            (self.evasion.stochastic, "stochastic"),
            (self.evasion.undeclared_randomness, "random without saying so"),
            (self.rejects, "rejects"),
        ]
        return ", ".join(words for applies, words in kinds if applies)

    def value(self, metric: str) -> Measured | None:
        """Return a metric's value, or None where it was not measured."""
        found = self.own.metrics.get(metric)
        return found if isinstance(found, Measured) else None

    def reason(self, metric: str) -> str | None:
        """Return why a metric has no value; None where it has one or was not asked for."""
        found = self.own.metrics.get(metric)
        return found.reason if isinstance(found, Missing) else None

    def scenario(self) -> str:
        """Return what must agree before two trials differ by their defenses alone."""
        parts = {name: self.spec.get(name) for name in ("data", "model", "training", "effort")}
        return _sorted_json(parts)

    def without_seed(self) -> str:
        """Return the spec's identity without its seed."""
        return _sorted_json({name: part for name, part in self.spec.items() if name != "seed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric that the search optimises."""

    metric: str
    direction: str
    worst: float | None

    @property
    def maximized(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"


def first_reason(records: Iterable[Record], metric: str) -> str:
    """Return why a metric has no value, by the first record that says so."""
    found = (record.reason(metric) for record in records)
    return next((reason for reason in found if reason is not None), "not measured")


def stack_label(stack: Iterable[Mapping[str, Any]]) -> str:
    """Write a stack as `a(eps=0.0314) + b(T=1.5)`; settings that are off or unset are left out."""
    return " + ".join(_defense_label(defense) for defense in stack) or UNDEFENDED_LABEL


def setting_text(value: Any) -> str:
    """Write a parameter's value compactly; a set is joined as `0.0157+0.0314`."""
    if isinstance(value, list | tuple):
        return "+".join(setting_text(single) for single in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _defense_label(defense: Mapping[str, Any]) -> str:
    settings = [
        f"{name}={setting_text(value)}"
        for name, value in defense.items()
        if name != "name" and value is not None and value is not False
    ]
    return f"{defense['name']}({', '.join(settings)})" if settings else str(defense["name"])


def _sorted_json(parts: Mapping[str, Any]) -> str:
    return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS).decode()


def _outcomes(notes: Mapping[str, Any]) -> dict[str, str]:
    plain = {
        name: marks for name, marks in (notes.get("outcomes") or {}).items() if name != _POINTS
    }
    for metric, marks in plain.items():
        if not isinstance(marks, str) or not marks or set(marks) - {"0", "1"}:
            raise ValueError(f"its outcomes of {metric} are not 0 or 1 for each of its points")
    return plain
