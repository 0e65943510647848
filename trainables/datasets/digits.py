"""scikit-learn's 1,797 hand-written digits, 8x8: embedded, needs no files."""

import numpy as np
import torch

from trainables.datasets.dataset import Dataset, LoadOptions, check_native_size, make_dataset
from trainables.datasets.images import LabelledImages

SIZE = 8
SCALE = 16
"""Pixels count the set bits of a 4x4 block, 0 to 16."""
RADIUS = 0.15
RADIUS_L2 = 0.8


def load_digits(options: LoadOptions) -> Dataset:
    """Load the digits: 1,797 rows of 1x8x8, ten classes, no official test set.

    Raises InputError where another image size is asked for.
    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (test part), 1998.
    """
    from sklearn.datasets import load_digits as read_digits

    check_native_size("digits", options.image_size, SIZE)
    bunch = read_digits()
    images = LabelledImages(
        pixels=torch.from_numpy(bunch.images.astype(np.uint8)).unsqueeze(1),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        scale=SCALE,
    )
    return make_dataset(
        name="digits",
        title="digits",
        place="digits",
        images=images,
        num_train=None,
        classes=tuple(str(digit) for digit in range(10)),
        radius=RADIUS,
        radius_l2=RADIUS_L2,
        augmentation="none",
        device=options.device,
    )
