"""A network whose gradient is infinite at black pixels: no attack returns NaN or gives up."""

import pytest
import torch
from torch import Tensor, nn

from tests.attacks.test_contract import ROWS, Row
from tests.conftest import TrainedNet
from trainables.attacks import attack

IMAGES = 16
BY_STEPS = (
    "pgd", "bim", "targeted_margin_pgd", "detector_aware_pgd", "deepfool", "lbfgs",
    "carlini_wagner", "autoattack",
)  # fmt: skip
"""Attacks that take many steps by gradients; a single one is no match for many draws of noise."""


class Gamma(nn.Module):
    """Another network behind a gamma curve, whose slope at zero is infinite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        scores: Tensor = self.model(x ** (1 / 2.2))
        return scores


def _attacked(net: TrainedNet) -> tuple[nn.Module, Tensor, Tensor]:
    model, x = Gamma(net.model).eval(), net.x[:IMAGES]
    return model, x, model(x).argmax(1)


def test_the_gradient_of_every_image_is_infinite(undefended: TrainedNet) -> None:
    model, x, y = _attacked(undefended)
    images = x.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(model(images), y)
    (gradient,) = torch.autograd.grad(loss, images)
    assert not bool(gradient.isfinite().flatten(1).all(1).any())


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_attacks_stay_finite_and_break_at_least_what_noise_does(
    row: Row, undefended: TrainedNet
) -> None:
    model, x, y = _attacked(undefended)
    for stop in row.stops:
        found = row.run(model, x, y, **stop)
        assert bool(found.isfinite().all()) and found.min() >= 0 and found.max() <= 1
        if row.name not in BY_STEPS:
            continue
        noise = attack("random_noise")(
            model,
            x,
            y,
            eps=min(row.radius, 0.8),
            norm=row.norm,
            draws=10,
            generator=torch.Generator().manual_seed(0),
        )
        broken, by_noise = (int((model(images).argmax(1) != y).sum()) for images in (found, noise))
        assert broken >= by_noise
