"""Attacks on many images, some at a time, so that memory stays flat in their number.

Axes: N images, C channels, H, W.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

BATCH = 512
"""Images that an attack works on at once."""
_Attack = TypeVar("_Attack", bound=Callable[..., Tensor])


def in_batches(attack: _Attack) -> _Attack:
    """Let an attack (model, x, y, **keywords) -> x_adv work on BATCH images at a time.

    Keywords that hold one value per image, tensors of shape (N,), are cut along; other keywords
    are passed on whole. Randomness is drawn batch by batch from the one generator.
    """

    @wraps(attack)
    def batched(model: Any, x: Tensor, y: Tensor, **keywords: Any) -> Tensor:
        if len(x) <= BATCH:
            return attack(model, x, y, **keywords)
        parts = []
        for start in range(0, len(x), BATCH):
            rows = slice(start, start + BATCH)
            cut = {
                name: value[rows] if _per_image(value, len(x)) else value
                for name, value in keywords.items()
            }
            parts.append(attack(model, x[rows], y[rows], **cut))
        return torch.cat(parts)

    return cast(_Attack, batched)


def _per_image(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and len(value) == count
