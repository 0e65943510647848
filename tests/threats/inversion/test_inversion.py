import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.threats.predictors import Noisy, OneRow, Rejecting, brightness
from trainables.deployed.predictor import Predictor, Surface
from trainables.errors import InputError, PredictorError
from trainables.metrics import intervals
from trainables.models import build_model
from trainables.records.value import Measured
from trainables.threats.inversion.inversion import Inversion, _disagree, _headline
from trainables.threats.threat import Findings
from trainables.training.modes import seeded

CHANCE = 0.1


def _value(found: Findings, name: str = "inversion_accuracy") -> Measured:
    value = found.metrics[name]
    assert isinstance(value, Measured)
    return value


class Scaled(Predictor):
    """Divides the scores by a temperature."""

    def __init__(self, model: nn.Module, T: float) -> None:
        super().__init__(model)
        self.T = T

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, K)."""
        scores: Tensor = self.model(x) / self.T
        return scores


class TwoSided(Predictor):
    """Offers a surface that leads nowhere before the true one."""

    def surfaces(self) -> list[Surface]:
        """Return both."""
        return [Surface(lambda x, g: 0 * self.scores(x, g), "bpda"), Surface(self.scores, "exact")]


def test_an_undefended_model_gives_its_classes_away(undefended: TrainedNet) -> None:
    found = Inversion().measure(Predictor(undefended.model), undefended.ctx)
    network, svm = (_value(found, f"inversion_accuracy_{name}") for name in ("network", "svm"))
    shares = {"network": network, "svm": svm}
    accuracies = found.notes["evaluators"]["clean_accuracy"]
    judge = found.notes["judge"]
    assert accuracies[judge] == max(accuracies.values())
    headline = _value(found)
    assert headline == shares[judge]
    assert headline.value >= 0.7 and headline.n == 10 and found.notes["reconstructions"] == 60
    assert found.notes["target_accuracy"] == 1.0
    assert _value(found, "inversion_ssim").value > 0.3
    assert _value(found, "inversion_ssim").value < _value(found, "inversion_ssim_baseline").value
    assert found.notes["evaluators"]["accuracy_on_class_means"] == {"network": 1.0, "svm": 1.0}


def test_the_judge_is_the_more_accurate_one_and_disagreement_is_said() -> None:
    none, all_ = (intervals.clustered(np.full(10, share)) for share in (0.0, 1.0))
    shares = {"network": none, "svm": all_}
    good, bad = intervals.proportion(95, 100), intervals.proportion(90, 100)
    assert _headline(shares, {"network": good, "svm": bad}) == "network"
    assert _headline(shares, {"network": bad, "svm": good}) == "svm"
    assert _headline(shares, {"network": good, "svm": good}) == "svm"
    assert _disagree(none, all_) and _disagree(all_, none)
    assert not _disagree(none, intervals.clustered(np.full(10, 0.2)))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_attack_on_an_untrained_net_stays_at_chance(
    seed: int, undefended: TrainedNet
) -> None:
    with seeded(seed, torch.device("cpu")):
        model = build_model("small_cnn", dataset=undefended.ctx.dataset)
    found = Inversion().measure(Predictor(model), undefended.ctx)
    assert _value(found).low <= CHANCE


def test_a_temperature_hides_nothing(undefended: TrainedNet) -> None:
    threat = Inversion(starts=3, kept=3, steps=30)
    hot, plain = (threat.measure(Scaled(undefended.model, T), undefended.ctx) for T in (1024, 1))
    assert hot.metrics == plain.metrics
    assert hot.notes["target_confidence"] < 0.2 < plain.notes["target_confidence"]


def test_what_the_deployed_model_is_surest_of_is_kept(undefended: TrainedNet) -> None:
    many, few, one = (
        Inversion(starts=6, kept=kept, steps=3).measure(Predictor(undefended.model), undefended.ctx)
        for kept in (6, 2, 1)
    )
    sure = [found.notes["target_confidence"] for found in (one, few, many)]
    assert sure[0] > sure[1] > sure[2]
    assert [found.notes["reconstructions"] for found in (one, few, many)] == [10, 20, 60]


def test_every_surface_is_climbed_and_the_better_image_kept(undefended: TrainedNet) -> None:
    threat = Inversion(starts=3, kept=3, steps=30)
    found = threat.measure(TwoSided(undefended.model), undefended.ctx)
    assert found.notes["surfaces"] == ["bpda", "exact"]
    assert found.notes["target_accuracy"] == 1.0 and _value(found).value >= 0.7


def test_noise_and_a_detector_do_not_stop_it(undefended: TrainedNet) -> None:
    model = undefended.model
    for predictor in (Noisy(model, declared=True), Rejecting(model, brightness, 0.0)):
        found = Inversion(steps=60).measure(predictor, undefended.ctx)
        assert _value(found).value >= 0.7
        assert found.notes["starts"] == (3 if predictor.stochastic else 12)


@pytest.mark.parametrize(
    "row",
    [torch.zeros(10), torch.full((10,), -torch.inf).index_fill(0, torch.tensor([4]), 0.0)],
    ids=["constant", "saturated"],
)
def test_a_model_that_tells_nothing_gives_chance(row: Tensor, undefended: TrainedNet) -> None:
    found = Inversion(starts=4, kept=4, steps=10).measure(OneRow(row), undefended.ctx)
    assert _value(found).low <= CHANCE


def test_scores_that_saturate_hide_nothing(undefended: TrainedNet) -> None:
    found = Inversion(starts=4, kept=4, steps=60).measure(
        Scaled(undefended.model, 1e-6), undefended.ctx
    )
    assert _value(found).value >= 0.7


def test_nan_is_an_error(undefended: TrainedNet) -> None:
    with pytest.raises(PredictorError, match="NaN"):
        Inversion(steps=1).measure(OneRow(torch.full((10,), torch.nan)), undefended.ctx)


def test_a_model_without_a_surface_is_an_error(undefended: TrainedNet) -> None:
    class Closed(Predictor):
        def surfaces(self) -> list[Surface]:
            return []

    with pytest.raises(RuntimeError, match="no surface"):
        Inversion(steps=1).measure(Closed(undefended.model), undefended.ctx)


def test_a_slow_model_is_climbed_from_fewer_starts(undefended: TrainedNet) -> None:
    class Slow(Predictor):
        max_screen_points = 20

    ctx = replace(undefended.ctx, spec=replace(undefended.ctx.spec, effort="audit"))
    for each in (undefended.ctx, ctx):
        slow = Inversion(steps=1).measure(Slow(undefended.model), each).notes
        assert (slow["starts"], slow["kept"]) == (2, 2)
    quick = Inversion(steps=1).measure(Predictor(undefended.model), ctx).notes
    assert (quick["starts"], quick["kept"]) == (48, 6)
    asked = Inversion(starts=7, steps=1).measure(Slow(undefended.model), undefended.ctx).notes
    assert asked["starts"] == 7


def test_more_cannot_be_kept_than_were_started() -> None:
    with pytest.raises(InputError, match="kept is 6, more than the 3 starts"):
        Inversion(starts=3)


def test_the_record_keeps_the_surest_image_of_each_class(undefended: TrainedNet) -> None:
    found = Inversion(starts=2, kept=2, steps=40).measure(
        Predictor(undefended.model), undefended.ctx
    )
    pictures: dict[str, Any] = found.notes["pictures"]
    assert pictures["shape"] == [8, 8, 1]
    assert [row["label"] for row in pictures["classes"]] == list(range(10))
    for row in pictures["classes"]:
        pixels = np.frombuffer(base64.b64decode(row["reconstruction"]), dtype=np.uint8)
        x = torch.from_numpy(pixels.copy()).view(1, 1, 8, 8) / 255
        assert int(undefended.model(x).argmax()) == row["target"] == row["label"]
