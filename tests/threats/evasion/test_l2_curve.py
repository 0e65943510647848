from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.deepfool import deepfool
from trainables.attacks.pgd import pgd
from trainables.datasets import LabelledImages, stratified_subset
from trainables.defenses import build_defense
from trainables.deployed.predictor import REFUSED, Prediction, Predictor
from trainables.errors import InputError
from trainables.metrics import metric
from trainables.records.value import Measured
from trainables.threats import build_threat
from trainables.threats.evasion.attacking import Attacker, Settings
from trainables.threats.evasion.efforts import settings_of
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.evasion.l2_curve import curve_names, l2_curve, stretched
from trainables.threats.evasion.target import target_of
from trainables.threats.threat import Findings

SIZES = (0.001, 0.3, 0.6, 1.2, 6.0)
QUICK: Settings = {
    "carlini_wagner": {"steps": 60, "search_steps": 3, "step_size": 0.1, "initial_const": 1.0}
}
NOTHING: Settings = {"carlini_wagner": {"steps": 1, "search_steps": 1}}
"""A search that never leaves the clean image."""
STANDING_STILL: Settings = {"pgd_l2": {"steps": 1, "step_size": 0.0, "random_start": False}}


def _few(net: TrainedNet, count: int = 40) -> LabelledImages:
    points = net.ctx.points()
    return points.select(stratified_subset(points.labels, count, seed=0))


def _curve(
    net: TrainedNet,
    predictor: Predictor | None = None,
    *,
    sizes: tuple[float, ...] = SIZES,
    count: int = 40,
    changed: Settings | None = None,
) -> Findings:
    points, predictor = _few(net, count), predictor or Predictor(net.model)
    target = target_of(predictor, points, net.ctx)
    generator = net.ctx.generator("right")
    right = predictor.predict(points.images(), generator).label == points.labels
    settings = {**settings_of("screen", target), **QUICK, **(changed or {})}
    return l2_curve(Attacker(target, points, net.ctx, settings), right, sizes)


def _left(found: Findings, sizes: tuple[float, ...] = SIZES) -> list[float]:
    values = [found.metrics[name] for name in curve_names(sizes)]
    return [value.value for value in values if isinstance(value, Measured)]


@pytest.mark.parametrize("net", ["undefended", "hardened"])
def test_accuracy_falls_with_the_size_from_clean_accuracy_to_nothing(
    net: str, request: pytest.FixtureRequest
) -> None:
    trained: TrainedNet = request.getfixturevalue(net)
    found, points = _curve(trained), _few(trained)
    left = _left(found)
    right = trained.model(points.images()).argmax(1) == points.labels
    assert left == sorted(left, reverse=True) and len(left) == len(SIZES)
    assert left[0] == pytest.approx(float(right.double().mean()), abs=0.02)
    assert left[1] > left[2] > left[3] and left[-1] == 0.0
    broken = sum(sum(by.values()) for by in found.notes["l2_curve"]["first_broken_by"].values())
    assert broken + found.notes["l2_curve"]["broken_without_attack"] == len(points)


def test_it_leaves_no_more_than_each_attack_by_hand(hardened: TrainedNet) -> None:
    points, model = _few(hardened), hardened.model
    x, y = points.images(), points.labels
    by_cw = carlini_wagner(model, x, y, **QUICK["carlini_wagner"])
    by_deepfool = deepfool(model, x, y)
    left = _left(_curve(hardened))
    for size, curve in zip(SIZES, left, strict=True):
        by_pgd = pgd(
            model, x, y, eps=size, norm="l2", steps=20,
            generator=torch.Generator().manual_seed(int(1000 * size)),
        )  # fmt: skip
        by_hand = [
            ((model(image).argmax(1) == y) | ((image - x).flatten(1).norm(dim=1) > size))
            for image in (by_cw, by_pgd, by_deepfool)
        ]
        withstood = [float(alone.double().mean()) for alone in by_hand]
        assert curve <= withstood[0]  # the same search: it draws nothing
        assert curve <= withstood[1] + 0.03  # another random start
        assert curve <= withstood[2] + 0.03


def test_where_one_attack_is_weak_the_other_counts(hardened: TrainedNet) -> None:
    both = _left(_curve(hardened))
    neither = _left(_curve(hardened, changed={**NOTHING, **STANDING_STILL}))
    without_cw, without_pgd = (_curve(hardened, changed=weak) for weak in (NOTHING, STANDING_STILL))
    assert neither == [neither[0]] * len(SIZES) and neither[0] > 0.9
    for alone, name in ((without_cw, "pgd_l2"), (without_pgd, "carlini_wagner")):
        by_size = alone.notes["l2_curve"]["first_broken_by"].values()
        named = sum(count for by in by_size for who, count in by.items() if who.startswith(name))
        assert named == sum(sum(by.values()) for by in by_size) > 25
    pairs = zip(both, _left(without_cw), _left(without_pgd), strict=True)
    assert all(worst <= min(one, other) + 0.03 for worst, one, other in pairs)


class Remembers(Predictor):
    """Answers as the nearest of some images is labelled; its surface is a net that is fooled."""

    def __init__(self, model: nn.Module, images: LabelledImages) -> None:
        super().__init__(model)
        self.images = images

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Look the nearest image up."""
        nearest = torch.cdist(x.flatten(1), self.images.images().flatten(1)).argmin(1)
        label = self.images.labels[nearest]
        return Prediction(label, torch.nn.functional.one_hot(label, 10).double().log().clamp(-9))


def test_an_image_breaks_its_point_only_if_the_deployed_model_is_wrong_on_it(
    undefended: TrainedNet,
) -> None:
    points = _few(undefended)
    x = points.images().flatten(1)
    safe = float(torch.cdist(x, x).fill_diagonal_(torch.inf).min()) / 2 - 0.01
    assert safe > 0.4
    sizes = (safe / 2, safe)
    found = _curve(undefended, Remembers(undefended.model, points), sizes=sizes)
    assert _left(found, sizes) == [1.0, 1.0]
    assert _left(_curve(undefended, sizes=sizes), sizes)[1] < 0.8  # its surface is fooled


class Wary(Predictor):
    """Refuses whatever is no image that it knows; `rejects` says by a score, else it abstains."""

    def __init__(self, model: nn.Module, images: LabelledImages, *, rejects: bool) -> None:
        super().__init__(model)
        self.known, self.rejects = images.images().flatten(1), rejects

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Classify what it knows."""
        found = super().predict(x, generator)
        strange = torch.cdist(x.flatten(1), self.known).amin(1)
        label = found.label.masked_fill(strange > 0.01, REFUSED)
        return Prediction(label, found.log_probabilities, strange if self.rejects else None)


@pytest.mark.parametrize(("rejects", "left"), [(True, 0.9), (False, 0.0)])
def test_a_rejection_withstands_and_an_abstention_is_wrong(
    rejects: bool, left: float, undefended: TrainedNet
) -> None:
    wary = Wary(undefended.model, _few(undefended), rejects=rejects)
    (accuracy,) = _left(_curve(undefended, wary, sizes=(1.0,)), (1.0,))
    assert accuracy >= left if rejects else accuracy == left


def test_a_vote_under_noise_is_attacked_through_its_draws(hardened: TrainedNet) -> None:
    defense = build_defense("randomized_smoothing", {"sigma": 0.1, "draws": 50}, radius=EPS)
    voting = defense.deploy(Predictor(hardened.model), hardened.ctx)
    found = _curve(hardened, voting, count=10, sizes=(0.001, 1.0, 6.0))
    left = _left(found, (0.001, 1.0, 6.0))
    assert left[0] > 0.7 and left[-1] <= 0.1 and left == sorted(left, reverse=True)
    notes = found.notes["l2_curve"]
    assert notes["draws"] == [10, 1]
    assert notes["settings"]["carlini_wagner"]["search_steps"] == 3


def test_the_threat_measures_it_and_names_it() -> None:
    threat = build_threat("evasion", {"eps_l2": [0.5, "1/4"]}, radius=EPS)
    names = ("robust_accuracy_l2_at_0.5000", "robust_accuracy_l2_at_0.2500")
    assert set(names) <= set(threat.metric_names())
    assert all(metric(name).direction == "maximize" for name in names)
    assert not any("l2_at" in name for name in Evasion().metric_names())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (0.0, "eps_l2 must be within"),
        (-0.5, "eps_l2 must be within"),
        ("nan", "eps_l2: 'nan' cannot be read"),
        ("0.5 radius", "cannot be a multiple of the radius"),
        ("far", "eps_l2: 'far' cannot be read"),
        ([0.5, 0.50001], "two of eps_l2 are the same to four decimals; drop one"),
        ([], "eps_l2 is empty"),
    ],
)
def test_a_size_that_is_none_is_refused(raw: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        build_threat("evasion", {"eps_l2": raw}, radius=EPS)
    assert "\n" not in str(refused.value)


def test_a_direction_is_stretched_to_a_length_inside_the_pixel_range() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((50, 1, 8, 8), generator=generator).round(decimals=1)
    change = 0.1 * torch.randn(x.shape, generator=generator)
    change = (x + change).clamp(0, 1) - x
    for length in (0.1, 1.0, 3.0):
        image = x + stretched(x, change, length)
        reached = (image - x).flatten(1).norm(dim=1)
        assert float(image.min()) >= -1e-6 and float(image.max()) <= 1 + 1e-6
        assert float(reached.max()) <= length * (1 + 1e-6)
        assert float(reached.min()) > 0.99 * length
    most = stretched(x, change, 100.0)  # every pixel that moves is at a bound
    full = torch.where(change > 0, 1 - x, -x) * (change != 0)
    torch.testing.assert_close(most, full, atol=1e-3, rtol=0)
