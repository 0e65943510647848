import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import (
    EPS,
    FixedPredictor,
    LinearSoftmax,
    context_of,
    same_weights,
    spec_of,
    train_in,
)
from trainables.defenses import DEFENSES, Stack, build_defense, build_stack
from trainables.defenses.prediction.ensemble import Ensemble, EnsemblePredictor, member_seed
from trainables.defenses.prediction.randomized_network import RandomizedNetwork
from trainables.defenses.training.label_smoothing import LabelSmoothing
from trainables.deployed.averaging import log_mean_softmax
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError

GENERATOR = torch.Generator()


def test_an_ensemble_of_one_answers_as_its_member(undefended: TrainedNet) -> None:
    plain = Predictor(undefended.model)
    alone = Ensemble(size=1).deploy(plain, undefended.ctx)
    found, expected = (p.predict(undefended.x, GENERATOR) for p in (alone, plain))
    assert torch.equal(found.label, expected.label)
    torch.testing.assert_close(found.log_probabilities, expected.log_probabilities)
    assert alone.forward_passes_per_prediction == 1 and not alone.stochastic


def test_the_log_of_the_mean_softmax_is_that_of_a_computation_by_hand() -> None:
    one, two = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[math.log(9.0), 0.0]])
    # Probabilities (1/4, 3/4) and (9/10, 1/10): the mean is (23/40, 17/40).
    expected = torch.tensor([[23 / 40, 17 / 40]])
    torch.testing.assert_close(log_mean_softmax([one, two]).exp(), expected)
    ensemble = EnsemblePredictor([FixedPredictor(one), FixedPredictor(two)])
    found = ensemble.predict(torch.zeros(1, 1, 2, 2), GENERATOR)
    torch.testing.assert_close(found.log_probabilities, expected.log())
    assert found.label.tolist() == [0]


def test_scores_that_would_underflow_keep_a_finite_log_and_gradient() -> None:
    scores = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    found = log_mean_softmax([scores, scores + 300])
    torch.testing.assert_close(found, torch.tensor([[-500.0, 0.0, -1000.0]]))
    (gradient,) = torch.autograd.grad(found[0, 2], scores)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -1.0, 1.0]]), atol=1e-4, rtol=0)


def test_the_surface_has_the_exact_gradient_of_the_mean() -> None:
    members = [LinearSoftmax(4, 3, seed) for seed in (1, 2, 3)]
    (surface,) = EnsemblePredictor([Predictor(member) for member in members]).surfaces()
    assert (surface.kind, surface.draws) == ("exact", 1)
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    expected = torch.stack([member(x).softmax(1) for member in members]).mean(0).log()
    found = surface.scores(x, GENERATOR)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(scores[:, 1].sum(), x)[0] for scores in (found, expected))
    )


def test_members_come_from_other_seeds_and_are_trained_once(tmp_path: Path) -> None:
    ctx = context_of(spec_of(Ensemble(size=3)), tmp_path)
    own = train_in(ctx)
    predictor = ctx.deploy(ctx.spec.stack, own)
    assert isinstance(predictor, EnsemblePredictor)
    first, second, third = (member.model for member in predictor.members)
    assert same_weights(first, own)
    assert not same_weights(first, second) and not same_weights(second, third)
    expected = ctx.train(ctx.spec.stack, ctx.pools.train, member_seed(0, 2), role="again")
    assert same_weights(third, expected.model)
    assert {"model", "member1", "member2"} <= set(ctx.used)
    assert len({ctx.used[role] for role in ("model", "member1", "member2")}) == 3
    assert len(ctx.phases) == 3, "the members' training counts as a cost of the defense"
    assert predictor.forward_passes_per_prediction == 3
    weights = sum(p.numel() for p in predictor.model.parameters())
    assert weights == 3 * sum(p.numel() for p in own.parameters())
    larger = context_of(spec_of(Ensemble(size=4)), tmp_path)
    larger.deploy(larger.spec.stack, train_in(larger))
    assert all(larger.used[role] == ctx.used[role] for role in ("model", "member1", "member2"))


def test_seeds_in_a_row_share_no_member_with_each_other_nor_with_a_surrogate() -> None:
    seeds = [member_seed(seed, number) for seed in range(5) for number in range(1, 5)]
    assert len({*seeds, *range(10)}) == len(seeds) + 10


def test_members_are_deployed_under_the_rest_of_the_stack(tmp_path: Path) -> None:
    ctx = context_of(spec_of(RandomizedNetwork(p=0.5, draws=3), Ensemble(size=2)), tmp_path)
    predictor = ctx.deploy(ctx.spec.stack, train_in(ctx))
    assert predictor.stochastic and predictor.forward_passes_per_prediction == 6
    eot, mean = predictor.surfaces()
    assert (eot.kind, eot.draws, mean.kind) == ("eot", 10, "exact")
    x = ctx.pools.test.images()[:10]
    one, two = (predictor.predict(x, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert not torch.equal(one.log_probabilities, two.log_probabilities)


def test_a_model_of_another_training_is_refused_unless_the_context_is_its_own(
    tmp_path: Path,
) -> None:
    """A twin of a threat among members that saw the trial's own data would be half the trial's."""
    ctx = context_of(spec_of(Ensemble(size=2)), tmp_path)
    half = ctx.pools.train.select(torch.arange(100))
    twin = ctx.train(ctx.spec.stack, half, 7, role="twin", deployed=False).model
    with pytest.raises(RuntimeError, match="not the one that this context trains"):
        ctx.deploy(ctx.spec.stack, twin)
    its_own = replace(ctx, pools=replace(ctx.pools, train=half), spec=replace(ctx.spec, seed=7))
    deployed = its_own.deploy(ctx.spec.stack, twin)
    assert isinstance(deployed, EnsemblePredictor)
    expected = ctx.train(ctx.spec.stack, half, member_seed(7, 1), role="again").model
    assert same_weights(deployed.members[1].model, expected)


def test_members_are_of_the_stack_that_is_deployed(tmp_path: Path) -> None:
    """Not of the trial's, where a part of that is deployed alone."""
    ctx = context_of(spec_of(LabelSmoothing(alpha=0.2), Ensemble(size=2)), tmp_path)
    alone, data = Stack((Ensemble(size=2),)), ctx.pools.train
    deployed = ctx.deploy(alone, ctx.train(alone, data, 0).model)
    assert isinstance(deployed, EnsemblePredictor)
    own, other = (
        ctx.train(stack, data, member_seed(0, 1)).model for stack in (alone, ctx.spec.stack)
    )
    assert same_weights(deployed.members[1].model, own) and not same_weights(own, other)


@pytest.mark.parametrize("other", ["temperature", "input_transformation", "feature_squeezing"])
def test_one_deployment_defense_a_stack(other: str) -> None:
    assert DEFENSES[other].slot == "deployment"
    with pytest.raises(InputError, match="both fill the slot deployment"):
        build_stack([Ensemble(), build_defense(other, {}, radius=EPS)])
