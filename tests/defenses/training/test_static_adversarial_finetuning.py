from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import TrainedNet
from tests.defenses.robustness import trained_with, white_box_accuracy
from tests.making import EPS, accuracy, context_of, same_weights, spec_of
from trainables.datasets import LabelledImages
from trainables.defenses import Preparation, Stack, build_defense
from trainables.defenses.training.static_adversarial_finetuning import (
    LEVELS,
    StaticAdversarialFinetuning,
    in_levels,
)
from trainables.trial.context import TrialContext


def _prepared(ctx: TrialContext, defense: StaticAdversarialFinetuning) -> Preparation:
    found = defense.prepare(ctx, ctx.pools.train, ctx.spec.seed)
    assert found is not None and found.data is not None
    return found


def _clean_twins(examples: LabelledImages, clean: LabelledImages) -> torch.Tensor:
    """Return the row of the clean pool that each example lies nearest to."""
    distances = torch.cdist(examples.images().flatten(1), clean.images().flatten(1), p=float("inf"))
    return distances.argmin(1)


@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd"])
def test_the_set_is_inside_its_balls_and_fools_the_undefended_net(
    attack: str, undefended: TrainedNet
) -> None:
    ctx = undefended.ctx
    defense = StaticAdversarialFinetuning(attack=attack, eps=(EPS,), num_examples=300)
    prepared = _prepared(ctx, defense)
    assert prepared.data is not None and len(prepared.data) == 300
    rows = _clean_twins(prepared.data, ctx.pools.train)
    assert len(set(rows.tolist())) == 300
    assert torch.equal(prepared.data.labels, ctx.pools.train.labels[rows])
    x, attacked = ctx.pools.train.images(rows), prepared.data.images()
    far = (attacked - x).flatten(1).abs().amax(1)
    assert float(far.max()) <= EPS + 1e-6 and float(far.min()) > EPS - 1 / LEVELS
    assert accuracy(undefended.model, attacked, prepared.data.labels) < 0.5
    assert all(
        torch.equal(weight, prepared.weights[name])
        for name, weight in undefended.model.state_dict().items()
    )


def test_the_set_is_the_same_each_time_and_at_most_the_training_rows(
    undefended: TrainedNet,
) -> None:
    ctx = undefended.ctx
    first, second = (_prepared(ctx, StaticAdversarialFinetuning(eps=(EPS,))) for _ in range(2))
    assert first.data is not None and second.data is not None
    assert len(first.data) == len(ctx.pools.train) < 10_000
    assert torch.equal(first.data.pixels, second.data.pixels)
    assert torch.equal(first.data.labels, second.data.labels)


def test_its_phase_has_epochs_and_rate_of_its_own(undefended: TrainedNet) -> None:
    training = undefended.ctx.spec.training
    found = _prepared(undefended.ctx, StaticAdversarialFinetuning())
    assert found.settings == replace(training, epochs=10, learning_rate=training.learning_rate / 2)
    given = _prepared(undefended.ctx, StaticAdversarialFinetuning(epochs=3, learning_rate=0.2))
    assert given.settings == replace(training, epochs=3, learning_rate=0.2)


@pytest.mark.parametrize("radius", [1 / 255, 4.5 / 255, 8 / 255, 0.15])
@pytest.mark.parametrize("scale", [16, 255])
def test_stored_images_are_the_nearest_levels_inside_the_ball(scale: int, radius: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(scale + 1, (200, 1, 4, 4), generator=generator) / scale
    radii = torch.full((200,), radius)
    attacked = (clean + radius * (2 * torch.rand(clean.shape, generator=generator) - 1)).clamp(0, 1)
    corners = (clean + radius * (attacked - clean).sign()).clamp(0, 1)
    for moved in (attacked, corners, clean):
        stored = in_levels(moved, clean, radii).float() / LEVELS
        assert float((stored - clean).abs().max()) <= radius + 1e-6
        assert float((stored - moved).abs().max()) < 1 / LEVELS
        inner = (moved - clean).abs() <= radius - 0.5 / LEVELS
        assert bool(((stored - moved).abs()[inner] <= 0.5 / LEVELS + 1e-6).all())
    if scale == LEVELS and radius == 8 / 255:
        torch.testing.assert_close(
            in_levels(corners, clean, radii).float(), LEVELS * corners, atol=1e-3, rtol=0
        )


def test_a_ball_without_a_level_gives_the_nearest_outside() -> None:
    clean = torch.full((2, 1, 1, 1), 100.4 / 255)
    found = in_levels(clean, clean, torch.tensor([0.1 / 255, 0.5 / 255]))
    assert found.flatten().tolist() == [100, 100]


def test_it_withstands_its_static_set_and_not_a_fresh_attack(
    undefended: TrainedNet, artefact_folder: Path
) -> None:
    defense = StaticAdversarialFinetuning(eps=(EPS,))
    net = trained_with(defense, folder=artefact_folder)
    static = _prepared(undefended.ctx, defense).data
    assert static is not None
    # Table E: 99 % of the static images right, clean accuracy about what it was.
    on_static = accuracy(net.model, static.images(), static.labels)
    assert on_static > 0.97
    before = accuracy(undefended.model, undefended.x, undefended.y)
    assert accuracy(net.model, net.x, net.y) > before - 0.03
    train = net.ctx.pools.train
    fresh = white_box_accuracy(net.model, train.images(), train.labels)
    assert fresh < on_static - 0.3


def test_the_undefended_model_is_shared_and_its_time_is_counted(tmp_path: Path) -> None:
    defense = StaticAdversarialFinetuning(eps=(EPS,), epochs=2)
    plain = context_of(spec_of(epochs=3), tmp_path)
    undefended = plain.train(Stack(), plain.pools.train, 0)
    built, stored = (context_of(spec_of(defense, epochs=3), tmp_path) for _ in range(2))
    models = [ctx.train(ctx.spec.stack, ctx.pools.train, 0) for ctx in (built, stored)]
    assert built.used["undefended"] == undefended.key
    assert same_weights(models[0].model, models[1].model)
    # Found in the store or made just now: the cost of training is the same.
    assert built.phases == stored.phases
    own = models[0].key
    assert set(built.phases) == {undefended.key, own, f"{own}:prepare"}
    assert built.phases[undefended.key] == undefended.seconds
    assert len(built.phases[own]) == 2
    assert all(seconds > 0 for phase in built.phases.values() for seconds in phase)
    assert torch.equal(models[0].members.pixels, built.pools.train.pixels)


def test_what_a_threat_trains_on_the_way_is_no_cost(tmp_path: Path) -> None:
    defense = StaticAdversarialFinetuning(eps=(EPS,), epochs=1)
    ctx = context_of(spec_of(defense), tmp_path)
    ctx.train(ctx.spec.stack, ctx.pools.train, 0, role="twin", deployed=False)
    assert ctx.phases == {}


def test_it_cannot_be_stacked_with_another_phase_before() -> None:
    assert set(build_defense("static_adversarial_finetuning", {}, radius=EPS).owns) == {
        "prepare", "inner_maximisation",
    }  # fmt: skip
