import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from trainables.defenses import Stack
from trainables.deployed.predictor import Certificates, Predictor
from trainables.records.value import Measured, Missing
from trainables.threats.cost import Cost
from trainables.trial.usage import UsageLog


def _costs(net: TrainedNet, predictor: Predictor | None = None) -> dict[str, Measured]:
    found = Cost().measure(predictor or Predictor(net.model), net.ctx).metrics
    return {name: value for name, value in found.items() if isinstance(value, Measured)}


def test_every_cost_is_positive_and_in_order(undefended: TrainedNet) -> None:
    found = _costs(undefended)
    assert set(found) == set(Cost().metric_names()) - {"certification_seconds"}
    assert all(value.value > 0 and value.low <= value.value <= value.high
               for value in found.values())  # fmt: skip
    for end in ("", "_batch128"):
        assert found[f"latency_ms_p50{end}"].value <= found[f"latency_ms_p95{end}"].value
    assert found["forward_passes_per_prediction"].value == 1


def test_the_training_time_is_that_of_its_epochs(undefended: TrainedNet) -> None:
    net = replace(undefended, ctx=undefended.ctx.noting_in(UsageLog()))
    trained = net.ctx.train(Stack(), net.ctx.pools.train, 0)
    found = _costs(net)["training_seconds"]
    assert found.value == pytest.approx(sum(trained.seconds))
    assert found.n == len(trained.seconds) == 15


def test_peak_memory_repeats(undefended: TrainedNet) -> None:
    first, second = (_costs(undefended)["peak_memory_mib"] for _ in range(2))
    assert first == second


class Certifying(Predictor):
    """Takes a time for a certificate that is known."""

    def __init__(self, model: nn.Module, seconds: float) -> None:
        super().__init__(model)
        self.seconds, self.asked = seconds, 0

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
        """Certify nothing of one image, slowly."""
        assert len(x) == 1
        self.asked += 1
        time.sleep(self.seconds)
        return Certificates(torch.tensor([-1]), torch.zeros(1).double(), torch.tensor([1]), 0.1)


@pytest.mark.parametrize(("seconds", "images"), [(0.01, 20), (0.6, 2)])
def test_the_time_of_a_certificate_is_that_of_one_image(
    seconds: float, images: int, undefended: TrainedNet
) -> None:
    predictor = Certifying(undefended.model, seconds)
    found = _costs(undefended, predictor)["certification_seconds"]
    assert predictor.asked == found.n == images
    assert seconds <= found.value < seconds + 0.3


def test_a_model_that_certifies_nothing_has_no_such_time(undefended: TrainedNet) -> None:
    found = Cost().measure(Predictor(undefended.model), undefended.ctx).metrics
    assert found["certification_seconds"] == Missing("the deployed model certifies nothing")


class Hungry(Predictor):
    """Takes 8 MiB more than the model while it predicts."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the model's scores."""
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
