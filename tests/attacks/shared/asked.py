"""Models that keep count of what an attack asks of them."""

import torch
from torch import Tensor, nn


class ScoresOnly(nn.Module):
    """Counts the images that it scores, and fails where a gradient could be asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        assert not torch.is_grad_enabled() and not x.requires_grad
        self.asked += len(x)
        self.images.append(x.clone())
        scores: Tensor = self.model(x)
        return scores


class NeverAsked(nn.Module):
    """Fails when it is asked."""

    def forward(self, x: Tensor) -> Tensor:
        """Refuse."""
        raise AssertionError("an attack on another model asked this one")


class NoGradient(nn.Module):
    """Gives scores that no gradient flows through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        with torch.no_grad():
            scores: Tensor = self.model(x)
        return scores
