"""A gradient that leads nowhere is found by attackers who do not follow it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS, context_of, spec_of
from tests.threats.predictors import Rejecting, brightness
from trainables.attacks import variant
from trainables.defenses.defense import Defense
from trainables.defenses.stack import Stack
from trainables.defenses.training.pgd_adversarial_training import PgdAdversarialTraining
from trainables.deployed.predictor import REFUSED, Prediction, Predictor
from trainables.threats.evasion.attacking import Attacker, label_scores, surrogate_scores
from trainables.threats.evasion.efforts import CORE, headline_of
from trainables.threats.evasion.masking import verdict
from trainables.threats.evasion.run import Run
from trainables.threats.evasion.signs.outsiders import (
    BY_LABELS,
    TRANSFERS,
    attack_by_labels,
    by_labels_notes,
    outsider_signs,
)
from trainables.threats.evasion.target import target_of


class ClassMeans(nn.Module):
    """Answers with another network's label and has the gradient of the distance to class means."""

    def __init__(self, inner: nn.Module, means: Tensor) -> None:
        super().__init__()
        self.inner, self.means = inner, means

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K) that say the label alone, with a gradient of their own."""
        with torch.no_grad():
            label = self.inner(x).argmax(1)
        distances = -(x.flatten(1)[:, None] - self.means[None]).square().sum(2)
        scores = 5.0 * torch.nn.functional.one_hot(label, len(self.means))
        return scores + distances - distances.detach()


@pytest.fixture(scope="module")
def planted(undefended: TrainedNet) -> tuple[TrainedNet, Predictor]:
    """Return the undefended net behind the gradient of class means, and 60 points of it."""
    rows = undefended.ctx.pools.train
    means = torch.stack([rows.images()[rows.labels == k].flatten(1).mean(0) for k in range(10)])
    return undefended, Predictor(ClassMeans(undefended.model, means))


def _attacked(net: TrainedNet, predictor: Predictor) -> tuple[Attacker, dict[str, Run], Tensor]:
    points = net.ctx.points().select(torch.arange(60))
    target = target_of(predictor, points, net.ctx)
    settings = {"pgd": {"steps": 40}, "pgd_dlr": {"steps": 40}, "hop_skip_jump": {"steps": 4}}
    attacker = Attacker(target, points, net.ctx, settings)
    runs = {name: attacker.run(name, eps=EPS) for name in ("pgd", "pgd_dlr", "transfer")}
    right = net.model(points.images()).argmax(1) == points.labels
    for run in runs.values():
        right &= run.withstood
    return attacker, runs, right


def _failed(runs: dict[str, Run], decided: dict[str, Run], chosen: Tensor) -> set[str]:
    signs = outsider_signs(runs, decided, chosen)
    return {sign.name for sign in signs if sign.failed and sign.strikes}


def test_labels_with_the_gradient_of_class_means_are_struck_off(
    planted: tuple[TrainedNet, Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, predictor = planted
    # Its surrogate inherits the mask, as one trained under the same stack does.
    monkeypatch.setattr(
        "trainables.threats.evasion.attacking.surrogate_scores", lambda *_: predictor.model
    )
    attacker, runs, standing = _attacked(net, predictor)
    chosen = torch.arange(60)
    assert float(standing.double().mean()) > 0.5
    assert _failed(runs, {}, chosen) == set()
    decided = attack_by_labels(attacker, runs, {"linf": standing}, chosen, {"linf": EPS})
    assert _failed(runs, decided, chosen) == {"hop_skip_jump_beats_gradients"}
    run = decided["hop_skip_jump"]
    assert bool((run.withstood | standing).all())
    notes = by_labels_notes(decided, {"linf": standing}, chosen)["hop_skip_jump"]
    assert notes["points"] == int(standing.sum()) and 0 < notes["broken"] <= notes["points"]
    assert 10 < notes["queries_per_point"] <= notes["most_queries"]
    check = verdict(outsider_signs(runs, decided, chosen))
    assert check["strikes"] and "a walk by labels alone breaks points" in check["words"]
    # Images of an undefended network break it too, and say so by a sign of their own.
    surrogate = net.model
    monkeypatch.setattr(
        "trainables.threats.evasion.attacking.surrogate_scores", lambda *_: surrogate
    )
    runs["transfer_undefended"] = attacker.run("transfer_undefended", eps=EPS)
    assert _failed(runs, {}, chosen) == {"transfer_undefended_beats_gradients"}


@pytest.mark.parametrize("name", ["undefended", "hardened"])
def test_an_honest_net_shows_no_sign(name: str, request: pytest.FixtureRequest) -> None:
    net: TrainedNet = request.getfixturevalue(name)
    attacker, runs, standing = _attacked_honestly(net, request.getfixturevalue("undefended"))
    chosen = torch.arange(60)
    decided = attack_by_labels(attacker, runs, {"linf": standing}, chosen, {"linf": EPS})
    assert _failed(runs, decided, chosen) == set()


def _attacked_honestly(
    net: TrainedNet, other: TrainedNet
) -> tuple[Attacker, dict[str, Run], Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "trainables.threats.evasion.attacking.surrogate_scores", lambda *_: other.model
        )
        return _attacked(net, Predictor(net.model))


def test_where_nothing_stands_nothing_is_asked(planted: tuple[TrainedNet, Predictor]) -> None:
    net, predictor = planted
    points = net.ctx.points().select(torch.arange(10))
    attacker = Attacker(target_of(predictor, points, net.ctx), points, net.ctx, {})
    standing = {norm: torch.zeros(10, dtype=torch.bool) for norm in BY_LABELS}
    found = attack_by_labels(attacker, {}, standing, torch.arange(10), {"linf": EPS, "l2": 1.0})
    assert set(found) == {"hop_skip_jump", "hop_skip_jump_l2"}
    for run in found.values():
        assert bool(run.withstood.all()) and run.queries is not None and not run.queries.any()
    notes = by_labels_notes(found, standing, torch.arange(10))
    assert notes["hop_skip_jump_l2"]["queries_per_point"] == 0
    assert attack_by_labels(attacker, {n: run for n, run in found.items()}, standing,
                            torch.arange(10), {"linf": EPS, "l2": 1.0}) == {}  # fmt: skip


def test_label_scores_say_the_deployed_label_and_nothing_else(undefended: TrainedNet) -> None:
    x = undefended.x[:30]
    limit = float(brightness(x).median())
    predictor = Rejecting(undefended.model, brightness, limit)
    answer = predictor.predict(x, torch.Generator())
    scores = label_scores(answer)
    rejected = answer.label == REFUSED
    assert bool(rejected.any()) and bool((scores[rejected] == 0).all())
    assert torch.equal(scores[~rejected].argmax(1), answer.label[~rejected])
    assert set(scores.flatten().tolist()) == {0.0, 1.0}
    abstained = Prediction(torch.full((30,), REFUSED), answer.log_probabilities)
    assert torch.equal(label_scores(abstained).argmax(1), answer.log_probabilities.argmax(1))


def test_every_audit_transfers_from_models_that_are_not_of_the_stack() -> None:
    assert set(TRANSFERS) <= set(CORE["audit"])
    assert not set(TRANSFERS) & set(headline_of(CORE["audit"]))


def test_the_hardened_surrogate_is_trained_without_the_stack(
    undefended: TrainedNet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ctx = context_of(spec_of(train_images=40, measured_images=20), tmp_path_factory.mktemp("few"))
    asked: list[tuple[Stack[Defense], int, dict[str, object]]] = []

    def train(stack: Stack[Defense], data: object, seed: int, **named: object) -> TrainedNet:
        asked.append((stack, seed, named))
        return undefended

    hearing = replace(ctx)
    object.__setattr__(hearing, "train", train)
    surrogate_scores(variant("transfer_hardened"), hearing)
    ((stack, seed, named),) = asked
    (defense,) = stack
    assert isinstance(defense, PgdAdversarialTraining)
    assert defense.name == "pgd_adversarial_training" and defense.eps == (EPS,)
    assert seed == ctx.spec.seed + 1
    assert named == {"role": "surrogate_hardened", "deployed": False}
