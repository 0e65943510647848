"""Inversion by queries alone, and with a decoder as the prior."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from tests.making import context_of, spec_of
from tests.threats.predictors import OneRow, Rejecting, brightness
from trainables.defenses import Stack
from trainables.defenses.prediction.confidence_masking import MaskedPredictor
from trainables.defenses.prediction.temperature import Temperature
from trainables.deployed.predictor import REFUSED, Prediction, Predictor, Surface
from trainables.errors import InputError, PredictorError
from trainables.models import build_model
from trainables.records.value import Measured
from trainables.threats import build_threat
from trainables.threats.inversion.inversion import Inversion
from trainables.threats.threat import Findings
from trainables.training.modes import seeded
from trainables.trial.settings import DataSpec
from trainables.trial.stages import run_trial

CHANCE = 0.1
BLACK_BOX = {"access": "black_box", "starts": 2, "kept": 2, "steps": 25, "queries": 1000}
COMBINATIONS = pytest.mark.parametrize(
    "raw",
    [
        {"prior": "generative", "starts": 3, "kept": 3},
        BLACK_BOX,
        {**BLACK_BOX, "prior": "generative"},
    ],
    ids=["white_box-generative", "black_box-total_variation", "black_box-generative"],
)


def _value(found: Findings, name: str = "inversion_accuracy") -> Measured:
    value = found.metrics[name]
    assert isinstance(value, Measured)
    return value


def _measure(predictor: Predictor, net: TrainedNet, raw: dict[str, object]) -> Findings:
    return build_threat("inversion", raw, radius=0.15).measure(predictor, net.ctx)


class Closed(Predictor):
    """Answers, and tells nobody how."""

    def surfaces(self) -> list[Surface]:
        raise AssertionError("a stranger asked for a gradient")

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        assert not x.requires_grad
        return super().predict(x, generator)


class LabelsOnly(Predictor):
    """Is always sure of what it answers."""

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        found = super().predict(x, generator)
        sure = torch.full_like(found.log_probabilities, -torch.inf)
        return replace(found, log_probabilities=sure.scatter(1, found.label[:, None], 0.0))


@pytest.mark.parametrize("prior", ["total_variation", "generative"])
def test_queries_alone_give_the_classes_away(prior: str, undefended: TrainedNet) -> None:
    found = _measure(Closed(undefended.model), undefended, {**BLACK_BOX, "prior": prior})
    assert _value(found).value >= 0.7 and _value(found).n == 10  # classes
    assert (found.notes["access"], found.notes["prior"]) == ("black_box", prior)
    # A thousand for each of 20 starts, and once more to see which are the surest.
    assert found.notes["queries"] == {"of_a_start": 1000, "asked": 20 * 1001}
    assert "surfaces" not in found.notes


def test_a_decoder_makes_the_white_box_attack_s_images_like_those_of_the_data(
    undefended: TrainedNet,
) -> None:
    found = _measure(
        Predictor(undefended.model), undefended, {"prior": "generative", "starts": 3, "kept": 3}
    )
    assert _value(found).value >= 0.7
    assert _value(found, "inversion_ssim").value > 0.8
    assert found.notes["tv"] == 0 and "queries" not in found.notes
    auxiliary = undefended.ctx.pools.auxiliary
    assert auxiliary is not None
    assert found.notes["decoder"]["rows"] == len(auxiliary) // 2
    assert found.notes["evaluators"]["rows"] == len(auxiliary) // 2
    assert found.notes["evaluators"]["trained_on"] == "half of the auxiliary pool"


@COMBINATIONS
def test_two_attacks_repeat_and_an_untrained_net_stays_at_chance(
    raw: dict[str, object], undefended: TrainedNet
) -> None:
    for seed in range(2):
        with seeded(seed, torch.device("cpu")):
            model = build_model("small_cnn", dataset=undefended.ctx.dataset)
        found = _measure(Predictor(model), undefended, raw)
        assert _value(found).low <= CHANCE
    assert _measure(Predictor(model), undefended, raw) == found


@pytest.mark.parametrize("digits", [0, 1])
@pytest.mark.parametrize("prior", ["total_variation", "generative"])
def test_masked_confidences_and_labels_alone_end_with_a_share(
    prior: str, digits: int, undefended: TrainedNet
) -> None:
    plain = Predictor(undefended.model)
    few = {**BLACK_BOX, "prior": prior, "queries": 200, "steps": 10}
    for predictor in (MaskedPredictor(plain, 3, digits), LabelsOnly(undefended.model)):
        found = _value(_measure(predictor, undefended, few))
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("limit", [-1.0, 0.35])
def test_refusals_end_with_a_share(limit: float, undefended: TrainedNet) -> None:
    predictor = Rejecting(undefended.model, brightness, limit)
    found = _measure(predictor, undefended, {**BLACK_BOX, "queries": 400, "steps": 20})
    if limit < 0:  # nothing is accepted, so nothing is learnt
        assert _value(found).low <= CHANCE and found.notes["target_accuracy"] == 0
    else:
        assert _value(found).value >= 0.5
        pictures = found.notes["pictures"]["classes"]
        assert any(row["target"] != REFUSED for row in pictures)


@COMBINATIONS
@pytest.mark.parametrize(
    "row",
    [torch.zeros(10), torch.full((10,), -torch.inf).index_fill(0, torch.tensor([4]), 0.0)],
    ids=["constant", "saturated"],
)
def test_a_model_that_tells_nothing_gives_chance(
    raw: dict[str, object], row: Tensor, undefended: TrainedNet
) -> None:
    found = _measure(OneRow(row), undefended, raw)
    assert _value(found).low <= CHANCE


@COMBINATIONS
def test_nan_is_an_error(raw: dict[str, object], undefended: TrainedNet) -> None:
    with pytest.raises(PredictorError, match="NaN"):
        _measure(OneRow(torch.full((10,), torch.nan)), undefended, raw)


def test_trials_that_differ_in_their_defense_share_the_decoder(tmp_path: Path) -> None:
    threat = Inversion(prior="generative", starts=1, kept=1, steps=2)
    first = spec_of(threats=[threat])
    records = [
        run_trial(spec, context_of(first, tmp_path).store)
        for spec in (
            first,
            replace(first, stack=Stack((Temperature(T=2.0),))),
            replace(first, seed=1),
            replace(first, threats=(replace(threat, access="black_box", queries=4),)),
        )
    ]
    assert all(record.error is None for record in records)
    keys = [record.artefacts["decoder"] for record in records]
    assert keys[0] == keys[1] == keys[3] != keys[2]
    # Four evaluations, since neither access nor deployment is another's.
    assert len({record.artefacts["evaluation_inversion"] for record in records}) == 4


def test_published_pools_give_a_quarter_of_the_test_pool_each(undefended: TrainedNet) -> None:
    ctx = undefended.ctx
    pools = replace(ctx.pools, auxiliary=None, validation=None, calibration=None)
    spec = replace(ctx.spec, data=DataSpec(pools="published"))
    net = replace(undefended, ctx=replace(ctx, pools=pools, spec=spec))
    raw = {"prior": "generative", "starts": 1, "kept": 1, "steps": 2}
    found = _measure(Predictor(undefended.model), net, raw)
    assert found.notes["evaluators"]["trained_on"] == "quarter of the test pool"
    quarter = len(ctx.pools.test) / 4
    assert abs(found.notes["decoder"]["rows"] - quarter) <= 1
    assert abs(found.notes["evaluators"]["rows"] - quarter) <= 1


def test_parameters_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match="queries is for access: black_box"):
        Inversion(queries=100)
    with pytest.raises(InputError, match="each of the 10 steps takes two"):
        Inversion(access="black_box", queries=19, steps=10)
    with pytest.raises(InputError, match="access: unknown 'grey_box'; known: white_box, black_box"):
        Inversion(access="grey_box")
    with pytest.raises(InputError, match="prior: unknown 'gan'"):
        Inversion(prior="gan")
