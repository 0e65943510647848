from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.making import context_of, same_weights, spec_of
from trainables.defenses.prediction import image_network
from trainables.defenses.prediction.image_network import (
    BATCH,
    NetworkSettings,
    epochs_for,
    shared_network,
)
from trainables.errors import TrainingDivergedError
from trainables.models.unet import UNet
from trainables.trial.context import TrialContext

SETTINGS = NetworkSettings(filters=4, most_halvings=1, time=False, epochs=3)


def _identity_loss(network: UNet, x: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    return F.mse_loss(network(x + 0.01 * noise), x)


def _train(ctx: TrialContext, settings: NetworkSettings = SETTINGS, **trained_for: float) -> UNet:
    return shared_network(ctx, "toy", settings, _identity_loss, trained_for=trained_for)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every training that really runs."""
    ran, fit = [], image_network._fit

    def counted(ctx: TrialContext, kind: str, *rest: object) -> object:
        ran.append(kind)
        return fit(ctx, kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(image_network, "_fit", counted)
    return ran


def test_the_training_time_is_a_cost_of_the_defense(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    _train(ctx)
    seconds = ctx.phases[ctx.used["toy"]]
    assert len(seconds) == SETTINGS.epochs and min(seconds) > 0


def test_the_loss_falls(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    network, x = _train(ctx), ctx.held_out.images()
    untrained = F.mse_loss(torch.zeros_like(x), x)  # a new network gives zeros
    assert float(F.mse_loss(network(x), x)) < 0.8 * float(untrained)


def test_trials_with_other_classifiers_share_one_network(
    tmp_path: Path, trainings: list[str]
) -> None:
    first = _train(context_of(spec_of(epochs=1), tmp_path))
    second = _train(context_of(spec_of(epochs=2), tmp_path))
    assert trainings == ["toy"]
    assert same_weights(first, second)


def test_data_seed_settings_and_purpose_each_make_another_network(
    tmp_path: Path, trainings: list[str]
) -> None:
    ctx = context_of(spec_of(), tmp_path)
    _train(ctx)
    _train(context_of(spec_of(seed=1), tmp_path))
    _train(ctx, replace(SETTINGS, epochs=2))
    _train(ctx, sigma=0.1)
    rows = torch.arange(100)
    _train(replace(ctx, pools=replace(ctx.pools, train=ctx.pools.train.select(rows))))
    assert len(trainings) == 5


def test_a_training_repeats_bit_for_bit_and_leaves_the_global_generator(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    networks = [_train(context_of(spec_of(), tmp_path / name)) for name in ("one", "two")]
    assert same_weights(*networks)
    assert torch.equal(torch.get_rng_state(), before)
    for network in networks:
        assert not network.training
        assert not any(weights.requires_grad for weights in network.parameters())


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    def diverging(network: UNet, x: Tensor, generator: torch.Generator) -> Tensor:
        return _identity_loss(network, x, generator) + float("inf")

    ctx = context_of(spec_of(), tmp_path)
    with pytest.raises(TrainingDivergedError, match="the loss of the toy is inf in epoch 1 of 3"):
        shared_network(ctx, "toy", SETTINGS, diverging, trained_for={})


def test_epochs_make_about_the_asked_steps(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    per_epoch = -(-len(ctx.pools.train) // BATCH)
    assert epochs_for(100 * per_epoch + 1, ctx) == 100
    assert epochs_for(1, ctx) == 1
