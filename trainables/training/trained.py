"""What a training leaves: the model, the rows that it has seen, its curves and its cost."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from trainables.datasets import LabelledImages


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model that a stack was trained with."""

    model: nn.Module
    members: LabelledImages
    """The rows that it was trained on, after filtering."""
    kept: Tensor
    """Which rows of the data those are, in order."""
    curves: Mapping[str, list[float]]
    seconds: tuple[float, ...]
    """Per epoch, as measured when it was trained."""
    key: str
    """Of its artefact."""
    weights_sha256: str
    """Hash of the weights themselves: equal where two trainings ended in the same bits."""


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Hash named tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name].cpu().numpy()).data)
    return digest.hexdigest()
