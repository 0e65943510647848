from dataclasses import replace

import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import random_images
from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.threats.inversion.evaluators import evaluators, prior_images
from trainables.trial.settings import ModelSpec
from trainables.trial.usage import UsageLog


def _published(net: TrainedNet, test: LabelledImages) -> TrainedNet:
    pools = replace(net.ctx.pools, auxiliary=None, validation=None, calibration=None, test=test)
    return replace(net, ctx=replace(net.ctx, pools=pools))


def test_they_are_of_two_kinds_and_good_at_it(undefended: TrainedNet) -> None:
    found = evaluators(undefended.ctx)
    assert found.network_name == "lenet5" and undefended.ctx.spec.model.name == "small_cnn"
    assert found.rows == len(undefended.ctx.pools.auxiliary or ())
    assert found.source == "auxiliary pool"
    clean = found.clean_accuracy()
    assert set(clean) == {"network", "svm"}
    assert all(share.value > 0.8 and share.n == 270 for share in clean.values())


@pytest.mark.parametrize("target", ["lenet5", "pixeldp_cnn", "some.module:factory"])
def test_the_network_is_never_the_targets(
    target: str, undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.threats.inversion.evaluators._STEPS", 20)
    spec = replace(undefended.ctx.spec, model=ModelSpec(name=target))
    assert evaluators(replace(undefended.ctx, spec=spec)).network_name == "small_cnn"


def test_trials_share_them_whatever_their_stack_training_and_seed(undefended: TrainedNet) -> None:
    ctx = undefended.ctx
    other = replace(
        ctx,
        spec=replace(ctx.spec, seed=7, training=replace(ctx.spec.training, epochs=2)),
        log=UsageLog(),
    )
    first, second = evaluators(ctx), evaluators(other)
    assert other.used == {"evaluator": ctx.used["evaluator"]} and not other.phases
    assert first.svm is second.svm
    x = undefended.x
    assert torch.equal(first.judge(x)["network"], second.judge(x)["network"])


def test_without_an_auxiliary_pool_half_of_the_test_pool_serves(undefended: TrainedNet) -> None:
    pool = undefended.ctx.pools.test
    found = evaluators(_published(undefended, pool).ctx)
    assert found.source == "half of the test pool"
    assert found.rows == len(pool) // 2 and len(found.held_out) == len(pool) - found.rows
    assert set(torch.from_numpy(found.svm.classes_).tolist()) == set(range(10))
    # What taught the machine is none of what it is tested on.
    supports = {tuple(row) for row in found.svm.support_vectors_.round(4).tolist()}
    held_out = found.held_out.images().flatten(1).double().numpy().round(4).tolist()
    assert not supports & {tuple(row) for row in held_out}


@pytest.mark.parametrize("published", [False, True])
def test_halved_they_share_no_image_with_a_prior(published: bool, undefended: TrainedNet) -> None:
    net = _published(undefended, undefended.ctx.pools.test) if published else undefended
    found, prior = evaluators(net.ctx, halved=True), prior_images(net.ctx)
    whole = net.ctx.pools.auxiliary or net.ctx.pools.test
    assert found.rows + len(prior) == len(whole) // (2 if published else 1)
    assert found.source == (
        "quarter of the test pool" if published else "half of the auxiliary pool"
    )

    def rows(images: LabelledImages) -> set[tuple[int, ...]]:
        return {tuple(row) for row in images.pixels.flatten(1).tolist()}

    supports = (16 * torch.from_numpy(found.svm.support_vectors_)).round().int().tolist()
    assert not {tuple(row) for row in supports} & rows(prior)
    assert not rows(net.ctx.pools.train) & rows(prior)
    assert not rows(found.held_out) & rows(prior)


def test_a_class_that_they_cannot_learn_is_named(undefended: TrainedNet) -> None:
    test = undefended.ctx.pools.test
    few = test.select((test.labels != 3).nonzero().flatten())
    with pytest.raises(
        InputError, match="half of the test pool, which holds no image of class '3'"
    ):
        evaluators(_published(undefended, few).ctx)


def test_a_judge_that_learnt_nothing_is_refused(
    undefended: TrainedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.threats.inversion.evaluators._STEPS", 20)
    net = _published(undefended, random_images(200))
    with pytest.raises(InputError, match="learnt nothing from the 100 images"):
        evaluators(net.ctx).clean_accuracy()
