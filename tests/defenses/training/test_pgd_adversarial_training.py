from pathlib import Path

import pytest
import torch

from tests.conftest import TrainedNet
from tests.defenses.robustness import (
    clean_view,
    is_untouched,
    norm_net,
    robust_accuracy,
    state_of,
    trained_with,
)
from tests.making import EPS, accuracy, context_of, same_weights, spec_of
from trainables.attacks.shared.balls import ball, broadcast
from trainables.defenses.training.fgsm_adversarial_training import FgsmAdversarialTraining
from trainables.defenses.training.pgd_adversarial_training import PgdAdversarialTraining
from trainables.trial.settings import ModelSpec


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_image_is_replaced_by_its_attack(undefended: TrainedNet) -> None:
    x, y = undefended.x[:64], undefended.y[:64]
    clean = clean_view(x, y)
    views = PgdAdversarialTraining(eps=(EPS,)).views(undefended.model, [clean], _generator())
    assert len(views) == 1 and views[0].weight == 1.0
    assert torch.equal(views[0].target, clean.target)
    far = (views[0].x - x).flatten(1).abs().amax(1)
    assert bool((far <= EPS + 1e-6).all()) and bool((far > 0.9 * EPS).all())
    assert accuracy(undefended.model, views[0].x, y) < 0.4


@pytest.mark.parametrize(("step_size", "expected"), [(None, 2.5 * EPS / 7), (0.01, 0.01)])
def test_the_examples_are_last_iterates_from_a_random_start(
    step_size: float | None, expected: float, undefended: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x[:32], undefended.y[:32]
    defense = PgdAdversarialTraining(eps=(EPS,), step_size=step_size)
    found = defense.views(model, [clean_view(x, y)], _generator())[0].x

    generator = _generator()
    radii = torch.full((32,), EPS)
    torch.randint(1, (32,), generator=generator)  # the draw of the radii
    current = (x + ball("linf").start(x, broadcast(radii, x), generator)).clamp(0, 1)
    for _ in range(7):
        current.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(model(current), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, current)
        moved = current.detach() + expected * gradient.sign()
        current = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)
    torch.testing.assert_close(found, current, atol=1e-6, rtol=0)


def test_of_a_set_each_image_draws_its_own_radius(undefended: TrainedNet) -> None:
    x, y = undefended.x, undefended.y
    defense = PgdAdversarialTraining(eps=(0.05, 0.2), steps=3)
    attacked = defense.views(undefended.model, [clean_view(x, y)], _generator())[0].x
    far = (attacked - x).flatten(1).abs().amax(1)
    assert 0.3 < float((far <= 0.05 + 1e-6).double().mean()) < 0.7
    assert float(far.max()) == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("crafting_mode", ["eval", "train"])
def test_crafting_leaves_the_net_as_it_was_in_either_mode(crafting_mode: str) -> None:
    model = norm_net()
    before, x = state_of(model), torch.rand(8, 1, 4, 4, generator=_generator())
    defense = PgdAdversarialTraining(eps=(0.1,), crafting_mode=crafting_mode)
    found = defense.views(model, [clean_view(x, torch.arange(8))], _generator())[0].x
    assert is_untouched(model, before)
    other = PgdAdversarialTraining(eps=(0.1,), crafting_mode="eval" if crafting_mode == "train" else
                                   "train")  # fmt: skip
    assert not torch.equal(
        found, other.views(model, [clean_view(x, torch.arange(8))], _generator())[0].x
    )


@pytest.mark.parametrize("crafting_mode", ["eval", "train"])
def test_running_statistics_move_once_a_step(crafting_mode: str, tmp_path: Path) -> None:
    defense = PgdAdversarialTraining(eps=(EPS,), steps=2, crafting_mode=crafting_mode)
    spec = spec_of(defense, epochs=2, model=ModelSpec(norm="batch"))
    ctx = context_of(spec, tmp_path)
    state = ctx.train(spec.stack, ctx.pools.train, 0).model.state_dict()
    counts = [int(value) for name, value in state.items() if name.endswith("batches_tracked")]
    assert counts and set(counts) == {2 * 4}  # epochs x batches of 64 out of 200


def test_examples_are_of_the_current_weights(undefended: TrainedNet, hardened: TrainedNet) -> None:
    view = clean_view(undefended.x[:32], undefended.y[:32])
    defense = PgdAdversarialTraining(eps=(EPS,))
    first, second = (defense.views(n.model, [view], _generator()) for n in (undefended, hardened))
    assert not torch.equal(first[0].x, second[0].x)


@pytest.mark.slow
def test_it_makes_a_net_more_robust_than_one_step_does(artefact_folder: Path) -> None:
    # As many epochs, on three seeds: one alone is decided by some ten images.
    gains = []
    for seed in range(3):
        many, one = (
            robust_accuracy(trained_with(defense, folder=artefact_folder, seed=seed))
            for defense in (PgdAdversarialTraining(eps=(EPS,)), FgsmAdversarialTraining(eps=(EPS,)))
        )
        gains.append(many - one)
    assert sum(gains) > 0, gains


def test_it_makes_a_net_robust(undefended: TrainedNet, artefact_folder: Path) -> None:
    net = trained_with(PgdAdversarialTraining(eps=(EPS,)), folder=artefact_folder)
    assert accuracy(net.model, net.x, net.y) > 0.9
    assert robust_accuracy(net) > robust_accuracy(undefended) + 0.3
    again = trained_with(PgdAdversarialTraining(eps=(EPS,)), folder=artefact_folder)
    assert same_weights(net.model, again.model)
