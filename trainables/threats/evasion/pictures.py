"""A few images before and after an attack, small enough for a record.

Axes: N points, C channels, H, W.
"""

from __future__ import annotations

import base64
from typing import Any

from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.deployed.predictor import Predictor, ask
from trainables.threats.evasion.run import Run
from trainables.trial.context import TrialContext

_COUNT = 6


def pictures(
    run: Run, predictor: Predictor, points: LabelledImages, ctx: TrialContext
) -> dict[str, Any]:
    """Return the first points before and after a PGD attack, with what is said of them.

    Pixels are base64 of uint8 in the order (row, column, channel), as a picture is drawn. A label
    of -1 is a rejection.
    """
    rows = slice(0, min(_COUNT, len(points)))
    clean, attacked = points.images(rows), run.adversarial[rows]
    generator, classes = ctx.generator("pictures"), ctx.dataset.num_classes
    before, after = (
        ask(predictor, images, generator, classes).label.tolist() for images in (clean, attacked)
    )
    return {
        "attack": "pgd",
        "shape": [clean.shape[2], clean.shape[3], clean.shape[1]],
        "images": [
            {
                "label": label,
                "before": before[index],
                "after": after[index],
                "clean": encoded(clean[index]),
                "attacked": encoded(attacked[index]),
            }
            for index, label in enumerate(points.labels[rows].tolist())
        ],
    }


def encoded(image: Tensor) -> str:
    """Return an image (C, H, W) in [0, 1] as base64 of uint8 in the order (row, column,
    channel).
    """
    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return base64.b64encode(pixels.tobytes()).decode("ascii")
