"""What reconstructions are held against: the images of their class, seen and unseen, and its mean.

Axes: N images, C channels, H, W, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.metrics.similarity import ssim
from trainables.records.value import Measured

MOST = 100
"""Images of a class that reconstructions are compared with, of each kind."""
Features = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) -> features (N, D)."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassReference:
    """The images that the reconstructions of one class are compared with."""

    label: int
    mean: Tensor
    """(C, H, W) of all training images of the class."""
    training: Tensor
    """(N, C, H, W) some that the target was trained on."""
    held_out: Tensor
    """(N, C, H, W) as many that it never saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How like the images of their class the reconstructions are."""

    ssim: Measured
    """To the class' mean."""
    ssim_baseline: Measured
    """The same for held-out images."""
    feature_distance: Measured
    """d / (d + e): nearest training image against nearest held-out one."""
    nearest: dict[str, float]
    """Mean distance to the nearest training and the nearest held-out image."""


def class_references(
    train: LabelledImages, held_out: LabelledImages, num_classes: int
) -> list[ClassReference]:
    """Choose the images of each class that has some in both pools, as many of either.

    As many, since the nearest of more images is nearer. InputError where no class has any.
    """
    found = []
    for label in range(num_classes):
        seen, unseen = (_rows(pool, label) for pool in (train, held_out))
        count = min(MOST, len(seen), len(unseen))
        if count == 0:
            continue
        mean = train.images(seen).mean(0)
        parts = (train.images(seen[:count]), held_out.images(unseen[:count]))
        found.append(ClassReference(label, mean, *parts))
    if not found:
        raise InputError(
            "inversion: no class has both a training and a held-out image; use more images"
        )
    return found


def likeness(
    images: Tensor, classes: Tensor, references: list[ClassReference], features: Features
) -> Likeness:
    """Compare reconstructions (N, C, H, W) of classes (N,) with the images of their class.

    One value a class, the mean over its reconstructions: those of a class are alike, so that only
    the classes are items of a mean.
    """
    similar, usual, shares, distances = [], [], [], []
    for one in references:
        own = images[classes == one.label]
        similar.append(_to_mean(own, one.mean))
        usual.append(_to_mean(one.held_out, one.mean))
        seen, unseen = (
            _nearest(features(own), features(others)) for others in (one.training, one.held_out)
        )
        shares.append(float(_share(seen, unseen).mean()))
        distances.append([float(seen.mean()), float(unseen.mean())])
    training, held_out = np.mean(distances, axis=0).tolist()
    return Likeness(
        ssim=intervals.mean(np.array(similar), low=-1.0, high=1.0),
        ssim_baseline=intervals.mean(np.array(usual), low=-1.0, high=1.0),
        feature_distance=intervals.mean(np.array(shares), low=0.0, high=1.0),
        nearest={"training": training, "held_out": held_out},
    )


def _rows(pool: LabelledImages, label: int) -> Tensor:
    rows = (pool.labels == label).nonzero().flatten()
    # Drawn, not the first ones: a folder's rows may be in the order of their making.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(label))
    return rows[order.to(rows.device)]


def _to_mean(images: Tensor, mean: Tensor) -> float:
    return ssim(mean.expand_as(images), images).value


def _nearest(features: Tensor, others: Tensor) -> Tensor:
    """Return each row's distance (N,) to the nearest of the others."""
    # Without the shortcut by a matrix product, which is rough where two points nearly meet.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(features.double(), others.double(), compute_mode=mode).amin(1)


def _share(seen: Tensor, unseen: Tensor) -> Tensor:
    """Return d / (d + e), one half where both are zero."""
    whole = seen + unseen
    return torch.where(whole > 0, seen / whole.where(whole > 0, 1), 0.5)
