"""The step of adaptive sharpness-aware minimisation against one computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainables.defenses.repair.ft_sam import sharpness_aware_step


@pytest.mark.parametrize("rho", [0.0, 0.5, 2.0])
def test_a_step_follows_the_gradient_at_the_worst_weights_nearby(rho: float) -> None:
    # L = (3 a^2 + b^2 / 2) / 2 at a = 1, b = 2 has g = (3, 1): T g = (3, 2), T^2 g = (3, 4).
    a, b = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([2.0]))
    optimizer = torch.optim.SGD([a, b], lr=0.1)
    asked = []

    def loss() -> torch.Tensor:
        asked.append((a.item(), b.item()))
        return (1.5 * a.square() + 0.25 * b.square()).sum()

    value = sharpness_aware_step(optimizer, nn.ParameterList([a, b]), rho)(loss)
    moved = (1 + 3 * rho / math.sqrt(13), 2 + 4 * rho / math.sqrt(13))
    assert asked == [(1.0, 2.0), (pytest.approx(moved[0]), pytest.approx(moved[1]))]
    assert float(value) == pytest.approx(2.5)
    assert float(a) == pytest.approx(1 - 0.1 * 3 * moved[0])
    assert float(b) == pytest.approx(2 - 0.1 * 0.5 * moved[1])


def test_the_move_has_the_length_rho_in_shares_of_the_weights() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3), torch.randn(7, 5)
    weights = list(layer.parameters())
    before = [weight.detach().clone() for weight in weights]
    moves: list[float] = []

    def loss() -> torch.Tensor:
        shares = [((w - old) / old).square().sum() for w, old in zip(weights, before, strict=True)]
        moves.append(float(torch.stack(shares).sum().sqrt()))
        return layer(x).square().mean()  # type: ignore[no-any-return]

    optimizer = torch.optim.SGD(weights, lr=0.01)
    sharpness_aware_step(optimizer, layer, 0.3)(loss)
    assert moves == [0.0, pytest.approx(0.3, rel=1e-4)]


def test_running_statistics_are_those_at_the_weights_themselves() -> None:
    linear, norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, momentum=1.0)
    network = nn.Sequential(linear, norm)
    with torch.no_grad():
        linear.weight.fill_(2)
    x = torch.tensor([[1.0], [2.0], [6.0]])  # of mean 3
    asked: list[float] = []

    def loss() -> torch.Tensor:
        asked.append(linear.weight.item())
        return network(x).square().mean() + linear(x).square().mean()

    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    sharpness_aware_step(optimizer, network, 1.0)(loss)
    assert asked[1] > 3 and norm.running_mean is not None
    assert float(norm.running_mean) == 2 * 3 and norm.num_batches_tracked == 1
