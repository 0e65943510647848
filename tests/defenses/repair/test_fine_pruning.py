"""Which units fine-pruning prunes, when it stops, and that they stay pruned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.making import spec_of
from trainables.datasets import LabelledImages
from trainables.defenses.repair.fine_pruning import (
    FinePruning,
    last_convolution,
    mean_activations,
    prune,
)
from trainables.errors import InputError

WEIGHTS = (1.0, 0.5, -3.0, 2.0)
"""Of four units, each a multiple of the image; the third is silent on every image."""


def _network(head: list[list[float]], *, norm: nn.Module | None = None) -> nn.Sequential:
    """Build a convolution of four units, their mean over positions, and a head of two classes."""
    convolution, linear = nn.Conv2d(1, 4, 1), nn.Linear(4, 2)
    network = nn.Sequential(
        nn.Conv2d(1, 1, 1),
        nn.ReLU(),
        convolution,
        norm or nn.Identity(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        linear,
    )
    first = network[0]
    assert isinstance(first, nn.Conv2d) and first.bias is not None
    assert convolution.bias is not None
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.zero_()
        convolution.weight.copy_(torch.tensor(WEIGHTS).view(4, 1, 1, 1))
        convolution.bias.zero_()
        linear.weight.copy_(torch.tensor(head))
        linear.bias.copy_(torch.tensor([0.0, -0.5]))
    return network.eval()


def _images() -> LabelledImages:
    """Return ten dark images of class 0 and ten bright ones of class 1: 0.1 and 0.9."""
    labels = torch.arange(20) % 2
    pixels = (1 + 8 * labels).to(torch.uint8).view(20, 1, 1, 1).expand(20, 1, 2, 2).clone()
    return LabelledImages(pixels=pixels, labels=labels, scale=10)


def test_activations_are_means_of_what_the_last_convolution_rectifies() -> None:
    network = _network([[0, 0, 0, 0], [0, 0, 0, 1]])
    layer = last_convolution(network, _images())
    assert layer.convolution is network[2] and layer.norm is None and layer.units == 4
    found = mean_activations(network, layer, _images())
    # The mean pixel is (0.1 + 0.9) / 2.
    torch.testing.assert_close(found, torch.tensor([0.5, 0.25, 0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("head", "drop", "pruned"),
    [
        # The fourth unit alone decides: the other three go, by their means 0, 0.25, 0.5.
        ([[0, 0, 0, 0], [0, 0, 0, 1]], 0.0, [2, 1, 0]),
        # The second unit decides: the silent one goes, and the next would cost half of accuracy.
        ([[0, 0, 0, 0], [0, 2, 0, 0]], 0.0, [2]),
        ([[0, 0, 0, 0], [0, 2, 0, 0]], 0.49, [2]),
        ([[0, 0, 0, 0], [0, 2, 0, 0]], 0.5, [2, 1, 0]),
    ],
)
def test_units_go_from_the_least_mean_on_while_accuracy_stays(
    head: list[list[float]], drop: float, pruned: list[int]
) -> None:
    network, images = _network(head), _images()
    layer = last_convolution(network, images)
    found = prune(network, layer, images, accuracy_drop=drop)
    assert found.tolist() == pruned
    kept = [unit for unit in range(4) if unit not in pruned]
    weights = layer.convolution.weight.flatten()
    assert bool((weights[pruned] == 0).all())
    assert weights[kept].tolist() == [WEIGHTS[unit] for unit in kept]


def test_a_norm_that_follows_is_silenced_with_its_unit() -> None:
    norm = nn.BatchNorm2d(4)
    network, images = _network([[0, 0, 0, 0], [0, 0, 0, 1]], norm=norm), _images()
    with torch.no_grad():
        norm.bias.fill_(0.3)
    layer = last_convolution(network, images)
    assert layer.norm is norm
    layer.silence(torch.tensor([1, 3]))
    with torch.no_grad():
        units = network[:5](images.images())
    assert units[:, [1, 3]].abs().max() == 0 and units[:, 0].min() > 0


def test_a_network_without_a_convolution_is_refused() -> None:
    with pytest.raises(InputError, match="runs no convolution"):
        last_convolution(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), _images())


def test_a_repair_is_no_part_of_the_training() -> None:
    spec = spec_of(FinePruning())
    assert spec.stack.training == () and FinePruning().needs_calibration
