"""What is deployed: data, model, training and stack; a trial's spec without its threats."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from trainables.datasets import Dataset
from trainables.defenses.defense import Defense
from trainables.defenses.stack import Stack
from trainables.errors import InputError
from trainables.trial.settings import EFFORTS, DataSpec, Effort, ModelSpec, TrainingSpec


@dataclass(frozen=True, kw_only=True)
class DeploymentSpec:
    """What a deployed model and the data that it is measured on come from."""

    data: DataSpec
    model: ModelSpec
    training: TrainingSpec
    stack: Stack[Defense] = field(default_factory=Stack)
    effort: Effort = "screen"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise InputError(f"unknown effort {self.effort!r}; known: {', '.join(EFFORTS)}")
        if not self.model.weights:
            if self.data.trained_on:
                raise InputError("data: trained_on says what given weights saw; give some")
            return
        for defense in self.stack:
            if reason := defense.on_given_weights():
                raise InputError(f"{defense.name} cannot be put on given weights: {reason}")

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError where it names what the data set lacks; a trial's threats may."""

    def canonical(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, those of a trial without threats."""
        return {
            "data": self.data.canonical(),
            "model": self.model.canonical(),
            "training": asdict(self.training),
            "stack": [defense.canonical() for defense in self.stack],
            "threats": [],
            "effort": self.effort,
            "seed": self.seed,
        }
