import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, context_of, spec_of
from trainables.datasets import LabelledImages
from trainables.defenses import Stack
from trainables.deployed.predictor import REFUSED, Prediction, Predictor
from trainables.errors import InputError, PredictorError
from trainables.metrics.membership import KEPT_ROWS, MEMBERSHIP_ATTACKS, auc_metric
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats import build_threat
from trainables.threats.membership.membership import (
    CHEAP,
    LABEL_ONLY,
    OF_ANSWERS,
    OF_SHADOWS,
    Membership,
)
from trainables.threats.membership.rates import tpr_at_fpr
from trainables.threats.threat import Findings
from trainables.trial.context import TrialContext


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
        """Return scores (B, 2)."""
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
    ctx = _given(net, members, others)
    return Membership().measure(ByPixel(net.model), ctx).metrics


def _given(net: TrainedNet, members: LabelledImages, others: LabelledImages) -> TrialContext:
    """Return a context of two classes whose net is said to be trained on the members."""
    pools = replace(net.ctx.pools, train=members, validation=others)
    ctx = replace(net.ctx, pools=pools, dataset=replace(net.ctx.dataset, classes=("0", "1")))
    _trained_on(ctx, net)
    return ctx


def _trained_on(ctx: TrialContext, net: TrainedNet) -> None:
    """Let the context return the net as one that was trained on its training pool."""
    members = ctx.pools.train
    trained = net.ctx.train(Stack(), net.ctx.pools.train, 0)
    pretended = replace(trained, members=members, kept=torch.arange(len(members)))
    object.__setattr__(ctx, "train", lambda *arguments: pretended)


def test_random_scores_give_an_auc_of_one_half_within_its_interval(
    undefended: TrainedNet,
) -> None:
    found = _measure(undefended, _random_pool(900, 1), _random_pool(270, 2))
    area = _measured(found["membership_auc"])
    assert area.low <= 0.5 <= area.high and area.high - area.low < 0.13
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
    area = _measured(found["membership_auc_loss_threshold"])
    assert area.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    headline = _measured(found["membership_auc"])
    assert headline.value == pytest.approx(area.value, abs=0.01) and headline.low > 0.5
    assert _measured(found["tpr_at_fpr_0_001"]).value > 0.1

    def losses(images: LabelledImages) -> Tensor:
        scores_B2 = ByPixel(undefended.model).scores(images.images(), torch.Generator())
        return F.cross_entropy(scores_B2, images.labels, reduction="none").double()

    threshold = losses(members).mean()
    rates = [(losses(members) <= threshold), (losses(others) > threshold)]
    expected = float(torch.stack([rate.double().mean() for rate in rates]).mean())
    alone = _given(undefended, members, others)
    threat = Membership(attacks=("loss_threshold",))
    only = threat.measure(ByPixel(undefended.model), alone).metrics
    balanced = _measured(only["membership_balanced_accuracy"])
    assert balanced.value == pytest.approx(expected, abs=2e-3)
    among_all = _measured(found["membership_balanced_accuracy"])
    assert among_all.value == pytest.approx(balanced.value, abs=0.02)
    assert among_all.high > balanced.high  # as it was chosen among four


class LessSureOfBright(Predictor):
    """Is the less sure of the true class, the brighter the first pixel; two classes."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 2)."""
        return torch.stack([4 - 4 * x[:, 0, 0, 0], torch.zeros(len(x))], dim=1)


def test_a_leak_the_wrong_way_round_is_a_leak(undefended: TrainedNet) -> None:
    members, others = _random_pool(400, 1, shift=55), _random_pool(1000, 2)
    ctx = _given(undefended, members, others)
    found = Membership().measure(LessSureOfBright(undefended.model), ctx)
    own = _measured(found.metrics["membership_auc_loss_threshold"])
    headline = _measured(found.metrics["membership_auc"])
    assert own.high < 0.5
    assert headline.value == pytest.approx(1 - own.value, abs=0.01)
    assert 0.5 < headline.low <= 1 - own.high and headline.high >= 1 - own.low
    assert found.notes["turned_round"] is True
    assert _measured(found.metrics["membership_balanced_accuracy"]).low > 0.5
    assert _measured(found.metrics["tpr_at_fpr_0_01"]).value > 0.1
    # Shown so that a higher score means a member.
    shown = found.notes["scores"]
    middle = np.convolve(shown["edges"], [0.5, 0.5], "valid")
    means = [np.average(middle, weights=shown[side]) for side in ("members", "non_members")]
    assert means[0] > means[1]


def test_members_are_the_rows_given_to_training_and_others_the_held_out_pool(
    undefended: TrainedNet,
) -> None:
    notes = Membership().measure(Predictor(undefended.model), undefended.ctx).notes
    assert notes["members"] == len(undefended.ctx.pools.train)
    assert notes["non_members"] == len(undefended.ctx.held_out)


def test_points_bound_what_is_asked(undefended: TrainedNet) -> None:
    notes = Membership(points=100).measure(Predictor(undefended.model), undefended.ctx).notes
    assert notes["members"] == notes["non_members"] == 100
    assert notes["label_only"]["members"] == 100


class Certain(Predictor):
    """Gives one class all of the probability."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 10)."""
        return torch.full((len(x), 10), -torch.inf).index_fill(1, torch.tensor([0]), 0.0)


class Constant(Predictor):
    """Gives every class the same probability."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 10)."""
        return torch.zeros(len(x), 10)


class Nothing(Predictor):
    """Answers NaN."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return NaN (B, 10)."""
        return torch.full((len(x), 10), torch.nan)


def test_constants_saturation_and_nan_end_in_a_metric_or_a_clear_failure(
    undefended: TrainedNet,
) -> None:
    with pytest.raises(PredictorError, match="NaN"):
        Membership().measure(Nothing(undefended.model), undefended.ctx)
    constant = Membership().measure(Constant(undefended.model), undefended.ctx).metrics
    for name in OF_ANSWERS:
        assert _measured(constant[auc_metric(name)]).value == 0.5
    # One class is right by chance: the pools are stratified, so that says next to nothing.
    saturated = Membership().measure(Certain(undefended.model), undefended.ctx).metrics
    for found in (constant, saturated):
        assert _measured(found["membership_auc"]).value == pytest.approx(0.5, abs=0.01)
        assert _measured(found["membership_balanced_accuracy"]).value == pytest.approx(
            0.5, abs=0.01
        )


def _never_seen(net: TrainedNet, folder: Path, seed: int) -> Findings:
    """Run every attack on a net, of rows of which it saw none, with shadows of their own."""
    ctx = context_of(spec_of(train_images=None, measured_images=None, seed=seed), folder)
    pools = ctx.pools
    assert pools.validation and pools.auxiliary
    held_out = (pools.validation, pools.auxiliary, pools.test)
    unseen = LabelledImages(
        pixels=torch.cat([pool.pixels for pool in held_out]),
        labels=torch.cat([pool.labels for pool in held_out]),
        scale=pools.train.scale,
    )
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(seed))
    members, others = unseen.select(order[:150]), unseen.select(order[150:300])
    ctx = replace(ctx, pools=replace(pools, train=members, validation=others, auxiliary=None))
    _trained_on(ctx, net)
    threat = Membership(attacks=tuple(MEMBERSHIP_ATTACKS), shadows=2)
    return threat.measure(Predictor(net.model), ctx)


def test_no_leak_is_found_where_there_is_none(undefended: TrainedNet, tmp_path: Path) -> None:
    covered = dict.fromkeys(("membership_auc", *map(auc_metric, MEMBERSHIP_ATTACKS)), 0)
    for seed in range(20):
        found = _never_seen(undefended, tmp_path, seed).metrics
        for name in covered:
            area = _measured(found[name])
            covered[name] += area.low <= 0.5 <= area.high
    assert covered.pop("membership_auc") >= 17
    assert min(covered.values()) >= 15, covered


def test_an_overfitted_net_is_told_by_all_that_look_at_its_answers(tmp_path: Path) -> None:
    spec = spec_of(epochs=60, train_images=60, measured_images=100)
    ctx = context_of(spec, tmp_path)
    net = ctx.train(Stack(), ctx.pools.train, 0).model
    threat = Membership(attacks=tuple(MEMBERSHIP_ATTACKS), shadows=4)
    found = threat.measure(ctx.deploy(Stack(), net), ctx)
    assert list(found.notes["attacks"]) == list(MEMBERSHIP_ATTACKS)
    areas = {name: _measured(found.metrics[auc_metric(name)]) for name in MEMBERSHIP_ATTACKS}
    headline = _measured(found.metrics["membership_auc"])
    strongest = max(areas, key=lambda name: abs(areas[name].value - 0.5))
    assert (found.notes["attack"], found.notes["turned_round"]) == (strongest, False)
    # Less than the largest by what choosing it flatters, which is little where much leaks.
    assert areas[strongest].value - 0.1 < headline.value <= areas[strongest].value
    assert headline.low > 0.5
    # Wider than the attack's own, since it was chosen among eight.
    assert headline.low >= areas[strongest].low - 0.2 and headline.high > areas[strongest].high
    for name in ("loss_threshold", "modified_entropy", "lira_online", "rmia", "shadow"):
        assert areas[name].low > 0.5, (name, areas[name])
    shown = found.notes["scores"]
    assert (sum(shown["members"]), sum(shown["non_members"])) == (60, 100)
    assert found.notes["shadows"] == {
        "models": 4, "rows": 60, "rows_of_the_attacked": 60, "one_spread_for_all": True,
    }  # fmt: skip


def test_label_only_sees_labels_and_nothing_else(undefended: TrainedNet) -> None:
    class Masked(Predictor):
        def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
            found = super().predict(x, generator)
            return Prediction(found.label, torch.full_like(found.log_probabilities, -2.3))

    plain, masked = (
        Membership().measure(predictor, undefended.ctx).metrics
        for predictor in (Predictor(undefended.model), Masked(undefended.model))
    )
    name = auc_metric(LABEL_ONLY)
    assert plain[name] == masked[name] and _measured(masked[name]).value != 0.5
    assert _measured(masked[auc_metric("loss_threshold")]).value == 0.5


def test_a_rejected_image_keeps_its_probabilities_and_has_no_label(undefended: TrainedNet) -> None:
    class Refusing(Predictor):
        rejects = True

        def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
            found = super().predict(x, generator)
            refused = torch.full_like(found.label, REFUSED)
            return Prediction(refused, found.log_probabilities, torch.ones(len(x)))

    plain, refused = (
        Membership().measure(predictor, undefended.ctx).metrics
        for predictor in (Predictor(undefended.model), Refusing(undefended.model))
    )
    for name in OF_ANSWERS:
        assert plain[auc_metric(name)] == refused[auc_metric(name)]
    assert _measured(refused[auc_metric(LABEL_ONLY)]).value == 0.5


def test_efforts_and_words_choose_the_attacks() -> None:
    every = tuple(MEMBERSHIP_ATTACKS)
    assert set(every) == {*CHEAP, *OF_SHADOWS}
    assert Membership().attacks_at("screen") == CHEAP
    assert Membership().attacks_at("audit") == every
    # A space gives one number for both efforts; a screen trains nothing that no one named.
    assert Membership(shadows=4).attacks_at("screen") == CHEAP
    assert Membership(shadows=4).attacks_at("audit") == every
    assert Membership(shadows=0).attacks_at("audit") == CHEAP
    assert Membership(attacks=("rmia", "entropy")).attacks_at("audit") == ("entropy", "rmia")
    assert auc_metric("rmia") in Membership(attacks=("rmia",)).metric_names()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"attacks": "guess"}, "membership: attacks: unknown 'guess'; known: loss_threshold"),
        ({"shadows": 3}, "membership: shadows must be even"),
        ({"shadows": 0, "attacks": ["entropy", "lira_online"]}, "lira_online needs shadow models"),
        ({"shadows": 2, "attacks": "entropy"}, "none of the named attacks uses shadows"),
        ({"points": 1}, "membership: points must be within"),
    ],
)
def test_what_cannot_be_run_is_refused(raw: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_threat("membership", raw, radius=EPS)


def test_an_audit_gives_every_metric_and_plain_notes(tmp_path: Path) -> None:
    spec = replace(spec_of(train_images=60, measured_images=40), effort="audit")
    ctx = context_of(spec, tmp_path)
    predictor = ctx.deploy(Stack(), ctx.train(Stack(), ctx.pools.train, 0).model)
    threat = Membership(shadows=2)
    found = threat.measure(predictor, ctx)
    names = Membership(attacks=tuple(MEMBERSHIP_ATTACKS)).metric_names()
    assert sorted(found.metrics) == sorted(names)
    assert json.loads(json.dumps(found.notes, allow_nan=False)) == found.notes
    assert isinstance(found.metrics["tpr_at_fpr_0_01"], Missing)
    assert found.metrics[KEPT_ROWS] == Missing("no filter of the stack dropped a row")
    again = threat.measure(predictor, context_of(spec, tmp_path))
    assert again.metrics == found.metrics


def test_a_dear_predictor_is_asked_about_fewer_points_by_label(undefended: TrainedNet) -> None:
    class Dear(Predictor):
        forward_passes_per_prediction = 300

    found = Membership().measure(Dear(undefended.model), undefended.ctx)
    assert found.notes["label_only"] == {
        "copies": 1, "members": 100, "non_members": 100, "noise_in_radii": [2.0],
    }  # fmt: skip
    assert _measured(found.metrics[auc_metric(LABEL_ONLY)]).n == 200
