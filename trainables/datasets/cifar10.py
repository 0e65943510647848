"""CIFAR-10 through torchvision: 50,000 + 10,000 images, 3x32x32."""

import numpy as np
import torch

from trainables.datasets.dataset import Dataset, LoadOptions, check_native_size, make_dataset
from trainables.datasets.images import LabelledImages
from trainables.datasets.torchvision_files import (
    check_files_exist,
    require_data_dir,
    translate_read_errors,
)

SIZE = 32
RADIUS = 8 / 255
RADIUS_L2 = 0.5
FOLDER = "cifar-10-batches-py"


def load_cifar10(options: LoadOptions) -> Dataset:
    """Load CIFAR-10 from data_dir/cifar-10-batches-py, the official training rows first.

    Raises InputError for missing, truncated or corrupt files (torchvision compares their md5) and
    where a resize is asked for. Source: A. Krizhevsky, Learning multiple layers of features, 2009.
    """
    from torchvision.datasets import CIFAR10

    check_native_size("cifar10", options.image_size, SIZE)
    root = require_data_dir("cifar10", options)
    if not options.download:
        files = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
        check_files_exist("cifar10", root, FOLDER, [*files, CIFAR10.meta["filename"]])
    with translate_read_errors("cifar10", root / FOLDER):
        train = CIFAR10(root, train=True, download=options.download)
        test = CIFAR10(root, train=False)
    pixels = torch.from_numpy(np.concatenate([train.data, test.data]))
    images = LabelledImages(
        pixels=pixels.permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor(train.targets + test.targets, dtype=torch.int64),
        scale=255,
    )
    return make_dataset(
        name="cifar10",
        title="CIFAR-10",
        place=f"cifar10: {root / FOLDER}",
        images=images,
        num_train=len(train.targets),
        classes=tuple(train.classes),
        radius=RADIUS,
        radius_l2=RADIUS_L2,
        augmentation="crop_flip",
        device=options.device,
    )
