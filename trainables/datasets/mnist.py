"""MNIST through torchvision: 60,000 + 10,000 images, 1x28x28."""

from pathlib import Path

import torch
from torch import Tensor

from trainables.datasets.dataset import Dataset, LoadOptions, check_native_size, make_dataset
from trainables.datasets.images import LabelledImages
from trainables.datasets.torchvision_files import (
    check_files_exist,
    require_data_dir,
    translate_read_errors,
)
from trainables.errors import InputError

SIZE = 28
RADIUS = 0.3
RADIUS_L2 = 2.0
FOLDER = "MNIST/raw"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist(options: LoadOptions) -> Dataset:
    """Load MNIST from data_dir/MNIST/raw, the official training rows first.

    Raises InputError for missing, truncated or corrupt files and where a resize is asked for.
    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
    """
    check_native_size("mnist", options.image_size, SIZE)
    root = require_data_dir("mnist", options)
    if not options.download:
        check_files_exist("mnist", root, FOLDER, FILES)
    train_pixels, train_labels = _read(root, train=True, download=options.download)
    test_pixels, test_labels = _read(root, train=False, download=options.download)
    images = LabelledImages(
        pixels=torch.cat([train_pixels, test_pixels]).unsqueeze(1),
        labels=torch.cat([train_labels, test_labels]),
        scale=255,
    )
    return make_dataset(
        name="mnist",
        title="MNIST",
        place=f"mnist: {root / FOLDER}",
        images=images,
        num_train=len(train_labels),
        classes=tuple(str(digit) for digit in range(10)),
        radius=RADIUS,
        radius_l2=RADIUS_L2,
        augmentation="none",
        device=options.device,
    )


def _read(root: Path, *, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import MNIST

    with translate_read_errors("mnist", root / FOLDER):
        part = MNIST(root, train=train, download=download)
    # torchvision checks neither that every image has a label nor that the images are 28x28.
    if part.data.shape != (len(part.targets), SIZE, SIZE):
        raise InputError(
            f"mnist: the {'train' if train else 't10k'} files in {root / FOLDER} hold images "
            f"{tuple(part.data.shape)} and {len(part.targets)} labels instead of one label for "
            "each 28x28 image; fetch and unpack them again"
        )
    return part.data, part.targets
