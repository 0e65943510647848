"""Features of a training set under an undefended network that was trained on all of it.

Axes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.defenses.defense import DefenseContext
from trainables.defenses.stack import Stack
from trainables.training.evaluation import in_batches


def representation(data: LabelledImages, ctx: DefenseContext) -> Tensor:
    """Return the penultimate features (N, D) of the rows, under a network trained on them.

    The network is an artefact that trials with other filters share, the undefended trial among
    them.
    """
    model = ctx.train(Stack(), data, ctx.seed, role="representation").model
    features: Callable[[Tensor], Tensor] = model.features  # type: ignore[assignment]
    with torch.no_grad():
        return in_batches(features, data)
