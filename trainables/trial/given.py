"""Specs that are sent to the worker as they are, as a space of their own: it builds none anew."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainables.storage.identity import canonical_json
from trainables.trial.spec import TrialSpec, spec_from_canonical

SPEC_KEY = "spec"
"""In a trial's config: the canonical spec as JSON."""
SAMPLED_KEY = "sampled"
"""In a trial's config: the flat dict that the spec was drawn as, for its record."""

Objective = TypeVar("Objective")
"""What has the name of a metric."""


@dataclass(frozen=True, slots=True)
class GivenSpecs(Generic[Objective]):
    """A space whose flat dicts hold whole specs: that of an audit, which draws nothing, and that of
    every trial's config in a sweep, whose driver has built the spec to know the trial's identity.
    """

    objectives: tuple[Objective, ...]
    """What is reported to Tune."""

    def spec(self, flat: Mapping[str, Any]) -> TrialSpec:
        """Read the spec that a flat dict holds."""
        return spec_from_canonical(json.loads(flat[SPEC_KEY]))


def flat_of(spec: TrialSpec) -> dict[str, Any]:
    """Return the flat dict that stands for a spec."""
    return {SPEC_KEY: canonical_json(spec.canonical())}


def config_of(spec: TrialSpec, sampled: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a trial: its spec, and the flat dict that this was drawn as."""
    return {**flat_of(spec), SAMPLED_KEY: dict(sampled)}


def sampled_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the flat dict that a config was drawn as: under a plain Tune it is the config."""
    sampled: Mapping[str, Any] = config.get(SAMPLED_KEY, config)
    return sampled
