from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from trainables.metrics import Measured
from trainables.predictor import Predictor
from trainables.threats.cost import Cost


def _costs(net: TrainedNet, predictor: Predictor | None = None) -> dict[str, Measured]:
    found = Cost().measure(predictor or Predictor(net.model), net.ctx).metrics
    return {name: value for name, value in found.items() if isinstance(value, Measured)}


def test_every_cost_is_positive_and_in_order(undefended: TrainedNet) -> None:
    found = _costs(undefended)
    assert set(found) == set(Cost().metric_names())
    assert all(value.value > 0 and value.low <= value.value <= value.high
               for value in found.values())  # fmt: skip
    for end in ("", "_batch128"):
        assert found[f"latency_ms_p50{end}"].value <= found[f"latency_ms_p95{end}"].value
    assert found["forward_passes_per_prediction"].value == 1


def test_the_training_time_is_that_of_its_epochs(undefended: TrainedNet) -> None:
    net = replace(undefended, ctx=replace(undefended.ctx, phases={}))
    trained = net.ctx.train((), net.ctx.pools.train, 0)
    found = _costs(net)["training_seconds"]
    assert found.value == pytest.approx(sum(trained.seconds))
    assert found.n == len(trained.seconds) == 15


def test_peak_memory_repeats(undefended: TrainedNet) -> None:
    first, second = (_costs(undefended)["peak_memory_mib"] for _ in range(2))
    assert first == second


class Hungry(Predictor):
    """Takes 8 MiB more than the model while it predicts."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Give the model's scores."""
        hoard = torch.zeros(2 * 2**20)
        return super().scores(x, generator) + hoard[:1]


def test_peak_memory_is_weights_and_the_most_that_is_held_at_once(undefended: TrainedNet) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    weights = 650 * 4
    found = _costs(undefended, Predictor(model))["peak_memory_mib"].value * 2**20
    # Scores and log-probabilities of 128 images, and little else.
    assert weights + 2 * 128 * 10 * 4 <= found <= weights + 40_000
    hungry = _costs(undefended, Hungry(model))["peak_memory_mib"].value * 2**20
    assert hungry - found == pytest.approx(8 * 2**20, rel=0.01)
