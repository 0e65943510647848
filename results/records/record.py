"""One trial's record as results knows it, and what its stack is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from results.records.certification_notes import CertificationNotes
from results.records.evasion_notes import EvasionNotes
from results.records.poisoning_notes import PoisoningNotes
from results.records.privacy_notes import PrivacyNotes
from results.records.values import Value

UNDEFENDED = "none"
MASKING = "masking_suspected"
MASKED = "masking suspected"
NOT_ADAPTIVE = "not attacked adaptively"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One trial's record."""

    trial: str
    status: str
    error: str | None
    spec: Mapping[str, Any]
    stack: tuple[Mapping[str, Any], ...]
    """Defenses in the order of the spec, each {"name": .., parameter: value}."""
    label: str
    """The stack in words; "none" where nothing defends."""
    metrics: Mapping[str, Value | None]
    reasons: Mapping[str, str]
    """Metric -> why it has no value."""
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    stage_versions: Mapping[str, int] = field(default_factory=dict)
    stale_stages: tuple[str, ...] = ()
    """Stages that ran in another version than the manifest names."""
    finished: str = ""
    evasion: EvasionNotes = field(default_factory=EvasionNotes)
    certification: CertificationNotes | None = None
    """None where certificates were not measured."""
    privacy: PrivacyNotes = field(default_factory=PrivacyNotes)
    poisoning: PoisoningNotes | None = None
    """None where nothing was poisoned."""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """Metric -> "1" or "0" for each of its points: right (clean_accuracy), robust
    (robust_accuracy); empty where they were not kept. Strings of one length in the records of one
    scenario are of the same points in the same order."""

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
    def struck_off(self) -> str:
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

    def value(self, metric: str) -> Value | None:
        """Return a metric's value, or None where it was not measured."""
        return self.metrics.get(metric)

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


def stack_label(stack: Iterable[Mapping[str, Any]]) -> str:
    """Write a stack as `a(eps=0.0314) + b(T=1.5)`; settings that are off or unset are left out."""
    return " + ".join(_defense_label(defense) for defense in stack) or UNDEFENDED


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
