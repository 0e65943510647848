"""Checkpoints of small networks, as a user brings them."""

from pathlib import Path

import torch
from torch import nn

from tests.making import CPU
from trainables.datasets import load_dataset
from trainables.models import build_model
from trainables.models.given.checkpoint import sha256_of
from trainables.trial.settings import ModelSpec


def network(name: str = "small_cnn", seed: int = 0) -> nn.Module:
    """Build a network for the digits, with weights of a seed."""
    dataset = load_dataset("digits", data_dir=None, image_size=None, device=CPU)
    torch.manual_seed(seed)
    return build_model(name, dataset=dataset).eval()


def checkpoint(folder: Path, model: nn.Module | None = None, prefix: str = "module.") -> str:
    """Save a network's weights as a training program does; the file stays the same one."""
    state = (model or network()).state_dict()
    path = folder / "weights.pt"
    torch.save({"state_dict": {prefix + name: v for name, v in state.items()}}, path)
    return str(path)


def given(place: str, name: str = "small_cnn") -> ModelSpec:
    """Return the spec of a network with the weights of a file."""
    return ModelSpec(name=name, weights=place, weights_sha256=sha256_of(place))
