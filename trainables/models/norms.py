"""Normalisation layers and activations by name."""

from collections.abc import Callable, Mapping
from typing import Literal

from torch import nn

from trainables.errors import InputError

Norm = Literal["batch", "group", "none"]

MAX_GROUPS = 8

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def _group_norm(channels: int) -> nn.Module:
    groups = max(count for count in range(1, MAX_GROUPS + 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


NORMS: Mapping[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
    "none": nn.Identity,
}


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Build a normalisation layer for (B, channels, H, W).

    'group' takes the largest number of groups up to eight that divides the channels; DP-SGD needs
    it, because batch statistics mix samples. Source: Wu and He, Group Normalization, 2018.
    """
    return NORMS[kind](channels)


def activation(name: str) -> nn.Module:
    """Build an activation, never in place; raise InputError for an unknown name."""
    if name not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
