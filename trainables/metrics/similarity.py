"""Structural similarity of images, by scikit-image.

Axes: N images, C channels, H, W.
"""

import numpy as np
from torch import Tensor

from trainables.metrics import intervals
from trainables.records.value import Measured

_WINDOW = 7
"""Side of the window in pixels (Wang et al., 2004); smaller images take the largest odd one."""


def ssim(clean: Tensor, changed: Tensor) -> Measured:
    """Return the mean SSIM of pairs (N, C, H, W) in [0, 1]; 1 is the same image.

    Source: Wang et al., 2004.
    """
    from skimage.metrics import structural_similarity

    side = min(clean.shape[2:])
    window = min(_WINDOW, side - 1 + side % 2)
    pairs = zip(clean.cpu().numpy(), changed.cpu().numpy(), strict=True)
    values = [
        structural_similarity(  # type: ignore[no-untyped-call]
            one, other, win_size=window, data_range=1.0, channel_axis=0
        )
        for one, other in pairs
    ]
    return intervals.mean(np.array(values, dtype=np.float64), low=-1.0, high=1.0)
