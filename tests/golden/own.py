"""A user's own defense and model, named by import path.

The bytes of this file are a part of golden artefact keys, as those of any user's file are: leave
them as they are. It imports only what users are told to import.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.defenses import Defense
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class Dimming(Defense):
    """Train on darker images."""

    name = "tests.golden.own:Dimming"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Train on darker images."

    factor: float = parameter(0.9, kind="float", meaning="factor of pixel values", low=0, high=1)

    def views(self, model: Any, views: Any, generator: Any) -> Any:
        """Return the views as they are: only the identity of this defense is looked at."""
        del model, generator
        return views


def linear(*, channels: int, height: int, width: int, num_classes: int, **_: Any) -> nn.Module:
    """Return a linear classifier."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))
