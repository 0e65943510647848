"""Adam along a cosine, as the networks that are not classifiers are trained."""

from __future__ import annotations

import torch
from torch import nn

from trainables.training.checkpoints import Moving
from trainables.training.optimizers import Adam


def adam_along_cosine(
    network: nn.Module, *, learning_rate: float, steps: int, generator: torch.Generator
) -> Moving:
    """Return an optimizer of the network whose learning rate falls to 0 over the steps."""
    optimizer = Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return Moving(model=network, optimizer=optimizer, schedule=schedule, generator=generator)
