"""torch.compile in a training: how its training passes alone are compiled, and whether it pays."""

import statistics
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class CompiledInTraining(nn.Module):
    """A network that is compiled in train mode, and runs as it is in eval mode.

    A training evaluates and attacks in eval mode, with and without gradients and in batches of
    other sizes: each would be compiled on its own, at a cost that no short training earns back.
    """

    def __init__(self, model: nn.Module, compiler: str) -> None:
        super().__init__()
        self.model = model
        # A bound method, not the module: that would be registered as a second child.
        self._compiled: Any = torch.compile(model.forward, backend=compiler, dynamic=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        scores: Tensor = self._compiled(x) if self.training else self.model(x)
        return scores


def plain(model: nn.Module) -> nn.Module:
    """Return the network without its compiled twin."""
    return model.model if isinstance(model, CompiledInTraining) else model


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a network trains, by a few steps of the training itself."""

    images_per_s: tuple[float, ...]
    """One an epoch, the first left out."""
    warm_up_s: float
    """What the first epoch took beyond the others."""

    @property
    def median(self) -> float:
        """Images per second in the median epoch."""
        return statistics.median(self.images_per_s)


@dataclass(frozen=True, slots=True)
class Gain:
    """What torch.compile brought in a few steps."""

    speedup: float
    """Images per second, compiled over eager."""
    compile_s: float
    """What the first compiled epoch took beyond the others."""

    def pays(self, seconds: float) -> bool:
        """Return whether a training of so many eager seconds ends sooner compiled."""
        return seconds / self.speedup + self.compile_s < seconds
