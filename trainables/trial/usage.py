"""What a trial came to use: artefacts, and the trainings that its deployed model cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class UsageLog:
    """Notes of what was used, in order; a part of a trial may have a log of its own."""

    used: dict[str, str] = field(default_factory=dict)
    """Role -> key of each artefact that the trial came to use."""
    phases: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Key of each training behind the deployed model -> its seconds per epoch."""

    def note(self, role: str, key: str) -> None:
        """Note that the artefact of a key was used in a role."""
        self.used[role] = key

    def note_training(self, key: str, seconds: Sequence[float]) -> None:
        """Note the seconds per epoch of a training behind the deployed model."""
        self.phases[key] = tuple(seconds)

    def note_model(self, key: str, values: Mapping[str, Any]) -> None:
        """Note the training of a model by its artefact's values, and those it went through."""
        for earlier, seconds in values.get("phases", {}).items():
            self.note_training(earlier, seconds)
        self.note_training(key, values["epoch_seconds"])
