"""What a model says of many images, a batch at a time so that memory stays flat.

Axes: N points, K classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.datasets.images import LabelledImages
from trainables.training.modes import frozen_for_attack

BATCH = 512


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean cross-entropy in nats and accuracy over a pool."""

    loss: float
    accuracy: float


def batches(images: LabelledImages) -> Iterator[Tensor]:
    """Return a pool's images in [0, 1], in batches (B, C, H, W)."""
    for start in range(0, len(images), BATCH):
        yield images.images(slice(start, start + BATCH))


def in_batches(answer: Callable[[Tensor], Tensor], images: LabelledImages) -> Tensor:
    """Apply a function of image batches to a whole pool and join what it returns (N, ..)."""
    return torch.cat([answer(x) for x in batches(images)])


def loss_and_accuracy(model: nn.Module, images: LabelledImages) -> Evaluation:
    """Evaluate a model in eval mode; its mode is restored."""
    with frozen_for_attack(model), torch.no_grad():
        scores = in_batches(model, images)
    loss = F.cross_entropy(scores.float(), images.labels)
    accuracy = (scores.argmax(1) == images.labels).double().mean()
    return Evaluation(float(loss), float(accuracy))
