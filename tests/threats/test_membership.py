from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import TrainedNet
from trainables.datasets import LabelledImages
from trainables.metrics import Measured, MetricValue, Missing
from trainables.predictor import Predictor
from trainables.threats.membership import Membership, tpr_at_fpr


def _measured(found: MetricValue) -> Measured:
    assert isinstance(found, Measured)
    return found


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.5, 1.0])
def test_the_rate_equals_its_definition_over_all_thresholds(fpr: float, decimals: int) -> None:
    draw = np.random.default_rng(0)
    members, others = (
        draw.normal(0.5, 1, 300).round(decimals),
        draw.normal(0, 1, 200).round(decimals),
    )
    thresholds = np.r_[-np.inf, np.unique(np.r_[members, others])]
    allowed = [t for t in thresholds if (others > t).mean() <= fpr + 1e-12]
    expected = max((members > t).mean() for t in allowed)
    found = _measured(tpr_at_fpr(members, others, fpr))
    assert found.value == pytest.approx(expected) and found.n == 300


@pytest.mark.parametrize(
    ("fpr", "count", "missing"),
    [(0.01, 99, True), (0.01, 100, False), (0.001, 999, True), (0.001, 1000, False)],
)
def test_too_few_non_members_cannot_resolve_a_rate(fpr: float, count: int, missing: bool) -> None:
    found = tpr_at_fpr(np.ones(50), np.zeros(count), fpr)
    assert isinstance(found, Missing) == missing
    if isinstance(found, Missing):
        assert f"{count} non-members" in found.reason and str(round(1 / fpr)) in found.reason
    else:
        assert found.value == 1.0


class ByPixel(Predictor):
    """Is the surer of the true class the brighter the first pixel; two classes."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Give scores (B, 2)."""
        return torch.stack([4 * x[:, 0, 0, 0] - 2, torch.zeros(len(x))], dim=1)


def _random_pool(count: int, seed: int, shift: int = 0) -> LabelledImages:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(200, (count, 1, 1, 1), generator=generator) + shift
    return LabelledImages(
        pixels=pixels.to(torch.uint8), labels=torch.zeros(count, dtype=torch.long), scale=255
    )


def _measure(
    net: TrainedNet, members: LabelledImages, others: LabelledImages
) -> dict[str, MetricValue]:
    pools = replace(net.ctx.pools, validation=others)
    ctx = replace(net.ctx, pools=pools, dataset=replace(net.ctx.dataset, classes=("0", "1")))
    trained = net.ctx.train((), net.ctx.pools.train, 0)
    object.__setattr__(ctx, "train", lambda *arguments: replace(trained, members=members))
    return Membership().measure(ByPixel(net.model), ctx).metrics


def test_random_scores_give_an_auc_of_one_half_within_its_interval(
    undefended: TrainedNet,
) -> None:
    found = _measure(undefended, _random_pool(900, 1), _random_pool(270, 2))
    area = _measured(found["membership_auc"])
    assert area.low <= 0.5 <= area.high and area.high - area.low < 0.1
    balanced = _measured(found["membership_balanced_accuracy"])
    assert balanced.low <= 0.5 <= balanced.high
    rate = _measured(found["tpr_at_fpr_0_01"])
    assert rate.low <= 0.02
    assert isinstance(found["tpr_at_fpr_0_001"], Missing)


def test_a_leak_is_found_and_measured_as_sklearn_does(undefended: TrainedNet) -> None:
    members, others = _random_pool(400, 1, shift=55), _random_pool(1000, 2)
    found = _measure(undefended, members, others)
    truth = np.r_[np.ones(400), np.zeros(1000)]
    scores = np.r_[members.pixels.flatten(), others.pixels.flatten()]
    area = _measured(found["membership_auc"])
    assert area.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert area.low > 0.5
    assert _measured(found["tpr_at_fpr_0_001"]).value > 0.1

    def losses(images: LabelledImages) -> Tensor:
        scores_B2 = ByPixel(undefended.model).scores(images.images(), torch.Generator())
        return F.cross_entropy(scores_B2, images.labels, reduction="none").double()

    threshold = losses(members).mean()
    rates = [(losses(members) <= threshold), (losses(others) > threshold)]
    expected = float(torch.stack([rate.double().mean() for rate in rates]).mean())
    balanced = _measured(found["membership_balanced_accuracy"])
    assert balanced.value == pytest.approx(expected, abs=2e-3)


def test_members_are_the_training_rows_and_others_the_held_out_pool(
    undefended: TrainedNet,
) -> None:
    notes = Membership().measure(Predictor(undefended.model), undefended.ctx).notes
    assert notes["members"] == len(undefended.ctx.pools.train)
    assert notes["non_members"] == len(undefended.ctx.held_out)


def test_large_pools_are_sampled(undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.threats.membership._MOST", 100)
    notes = Membership().measure(Predictor(undefended.model), undefended.ctx).notes
    assert notes["members"] == notes["non_members"] == 100


def test_probabilities_that_are_nan_are_an_error_and_infinite_losses_are_not(
    undefended: TrainedNet,
) -> None:
    class Broken(Predictor):
        def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return torch.full((len(x), 10), float("nan"))

    class Certain(Predictor):
        def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return torch.full((len(x), 10), -torch.inf).index_fill(1, torch.tensor([0]), 0.0)

    with pytest.raises(RuntimeError, match="NaN"):
        Membership().measure(Broken(undefended.model), undefended.ctx)
    found = Membership().measure(Certain(undefended.model), undefended.ctx).metrics
    assert 0.4 < _measured(found["membership_auc"]).value < 0.6
