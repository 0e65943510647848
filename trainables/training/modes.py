"""Models in the state that an attack or a measurement needs, and back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainables.device import forked_rng


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the model's modes, and whether its parameters require gradients, at the end."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@contextmanager
def frozen_for_attack(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode without parameter gradients, then restore both."""
    with restored(model):
        model.eval().requires_grad_(False)
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Seed torch's global generators for a while and yield a generator of the same seed.

    The global ones serve initialisation and dropout, which take no generator; they are restored.
    """
    with forked_rng(device):
        torch.manual_seed(seed)
        yield torch.Generator(device).manual_seed(seed)
