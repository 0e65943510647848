"""What one trial is: frozen, canonical, hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainables.datasets import Dataset, dataset_entry
from trainables.defenses import build_defense, build_stack
from trainables.errors import InputError
from trainables.parameters import build
from trainables.storage.identity import identity_hash
from trainables.threats import Threat, build_threat
from trainables.trial.deployment_spec import DeploymentSpec
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec


@dataclass(frozen=True, kw_only=True)
class TrialSpec(DeploymentSpec):
    """The identity of a trial: what is deployed, and the threats that it is measured under."""

    threats: tuple[Threat, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [threat.name for threat in self.threats]
        if len(set(names)) != len(names):
            raise InputError(f"threats: one is named twice in {names}")

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError where a threat names what the data set does not have."""
        for threat in self.threats:
            threat.check(dataset)

    def canonical(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return {
            **super().canonical(),
            "threats": [threat.canonical() for threat in self.threats],
        }

    @cached_property  # a driver asks for it several times a trial
    def trial(self) -> str:
        """The trial's identity: the hash of the canonical spec."""
        return identity_hash(self.canonical())


def spec_from_canonical(plain: Mapping[str, Any]) -> TrialSpec:
    """Build a spec from its canonical form."""
    radius = dataset_entry(plain["data"]["name"]).radius
    stack = [_named(build_defense, row, radius) for row in plain["stack"]]
    return TrialSpec(
        data=DataSpec(**plain["data"]),
        model=ModelSpec(**plain["model"]),
        training=build(TrainingSpec, plain["training"], owner="training", radius=radius),
        stack=build_stack(stack),
        threats=tuple(_named(build_threat, row, radius) for row in plain["threats"]),
        effort=plain["effort"],
        seed=plain["seed"],
    )


def _named(builder: Any, row: Mapping[str, Any], radius: float) -> Any:
    parameters = {key: value for key, value in row.items() if key != "name"}
    return builder(row["name"], parameters, radius=radius)
