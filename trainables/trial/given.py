"""Specs that were written out beforehand, as a space of their own: an audit draws nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trainables.storage.identity import canonical_json
from trainables.trial.spec import TrialSpec, spec_from_canonical

SPEC_KEY = "spec"
"""In a trial's config: the canonical spec as JSON."""


Objective = TypeVar("Objective")
"""What has the name of a metric."""


@dataclass(frozen=True, slots=True)
class GivenSpecs(Generic[Objective]):
    """A space whose flat dicts hold whole specs."""

    objectives: tuple[Objective, ...]
    """What is reported to Tune."""

    def spec(self, flat: Mapping[str, Any]) -> TrialSpec:
        """Read the spec that a flat dict holds."""
        return spec_from_canonical(json.loads(flat[SPEC_KEY]))


def flat_of(spec: TrialSpec) -> dict[str, Any]:
    """Return the flat dict that stands for a spec."""
    return {SPEC_KEY: canonical_json(spec.canonical())}
