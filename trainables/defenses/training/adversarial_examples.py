"""Adversarial examples of a model's weights as they are now, for the defenses that train on them.

Axes: B batch, C channels, H, W.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.attacks.bim import bim
from trainables.attacks.fgsm import fgsm
from trainables.attacks.pgd import pgd
from trainables.parameters import PIXELS, parameter
from trainables.training.modes import frozen_for_attack, restored

_MANY_STEPS = {"bim": bim, "pgd": pgd}
CRAFTED_BY = ("fgsm", *_MANY_STEPS)
"""Attacks that training examples may be made by."""


def radii_parameter(radius: str = "radius of the examples") -> Any:
    """Declare the field `eps` of a defense: the radii that `draw_radii` draws from."""
    return parameter(
        (8 / 255,), kind="float", meaning=f"{radius}, or a set drawn per image",
        low=0.0, high=1.0, unit=PIXELS, many=True,
    )  # fmt: skip


def draw_radii(
    eps: tuple[float, ...], count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw a radius for each image (B,) from the set `eps`, all as likely."""
    # Filled on the device, not copied there: a copy waits for all that is under way.
    choices = torch.stack([torch.full((), radius, device=device) for radius in eps])
    return choices[torch.randint(len(choices), (count,), generator=generator, device=device)]


def craft(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack_name: str,
    radii: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Attack images x (B, C, H, W) of true classes y (B,) within radii (B,), in eval mode.

    Returns the last iterate: what is trained on must not stop at the border of its class.
    The model's modes and gradients are left as they were.
    """
    with frozen_for_attack(model):
        if attack_name == "fgsm":
            return fgsm(model, x, y, eps=radii)
        return _MANY_STEPS[attack_name](
            model, x, y, eps=radii, steps=steps, early_stop=False, generator=generator
        )


@contextmanager
def frozen_in_train_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into train mode without parameter gradients, then restore both.

    Batch norm normalises by the batch that it is given, but its running statistics stay: they are
    to move once a training step, not once a step of the attack.
    """
    norms = [(m, m.track_running_stats) for m in model.modules() if isinstance(m, _BatchNorm)]
    with restored(model):
        model.train().requires_grad_(False)
        for norm, _ in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm, tracked in norms:
                norm.track_running_stats = tracked
