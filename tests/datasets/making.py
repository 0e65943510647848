"""Small data sets for the tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainables.datasets.dataset import Dataset, make_dataset
from trainables.datasets.images import LabelledImages

CPU = torch.device("cpu")


def fake_dataset(labels: Tensor, num_train: int | None, channels: int = 1) -> Dataset:
    """Number the rows by their pixels, so that rows can be told apart."""
    row = torch.arange(len(labels))
    pixels = torch.stack([(row >> shift) & 255 for shift in (0, 8, 16)], dim=1).to(torch.uint8)
    image = torch.zeros(len(labels), channels, 2, 2, dtype=torch.uint8)
    image.flatten(1)[:, :3] = pixels
    return make_dataset(
        name="fake",
        title="Fake",
        place="fake",
        images=LabelledImages(pixels=image, labels=labels, scale=255),
        num_train=num_train,
        classes=tuple(str(k) for k in range(int(labels.max()) + 1)),
        radius=0.1,
        radius_l2=0.5,
        augmentation="none",
        device=CPU,
    )


def rows_of(images: LabelledImages) -> Tensor:
    """Read back the row numbers that `fake_dataset` wrote into the pixels."""
    parts = images.pixels.flatten(1)[:, :3].long()
    return parts[:, 0] + (parts[:, 1] << 8) + (parts[:, 2] << 16)


def write_images(
    folder: Path, count: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB"
) -> Path:
    """Write `count` random PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(count).integers(0, 256, (count, size[1], size[0], 3), np.uint8)
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.png")
    return folder


def real_data(layout: str) -> Path:
    """Return the folder of real data; skip where this machine has none."""
    root = os.environ.get("DEFENSE_SWEEP_DATA")
    if not root or not (Path(root) / layout).is_dir():
        pytest.skip(f"needs {layout} under $DEFENSE_SWEEP_DATA, which is not set or lacks it")
    return Path(root)
