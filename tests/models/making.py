"""Data sets of any shape, for building models."""

import torch

from trainables.datasets import Dataset, LabelledImages
from trainables.datasets.dataset import make_dataset


def dataset_of(channels: int, side: int, num_classes: int = 10) -> Dataset:
    """Make random images of one shape."""
    generator = torch.Generator().manual_seed(0)
    count = 10 * num_classes
    shape = (count, channels, side, side)
    return make_dataset(
        name=f"random-{side}",
        title="random",
        place="random",
        images=LabelledImages(
            pixels=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
            labels=torch.arange(count) % num_classes,
            scale=255,
        ),
        num_train=None,
        classes=tuple(str(k) for k in range(num_classes)),
        radius=0.1,
        radius_l2=0.5,
        augmentation="none",
        device=torch.device("cpu"),
    )
