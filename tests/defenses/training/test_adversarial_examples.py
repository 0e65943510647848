import pytest
import torch
from torch import nn

from tests.conftest import TrainedNet
from tests.defenses.robustness import is_untouched, norm_net, state_of
from tests.making import EPS, accuracy
from trainables.attacks.bim import bim
from trainables.attacks.fgsm import fgsm
from trainables.defenses.training.adversarial_examples import (
    CRAFTED_BY,
    craft,
    draw_radii,
    frozen_in_train_mode,
)

CPU = torch.device("cpu")


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_radii_are_drawn_from_the_set_in_equal_shares() -> None:
    radii = draw_radii((0.1, 0.2, 0.4), 3000, _generator(), CPU)
    values, counts = torch.unique(radii, return_counts=True)
    assert torch.equal(values, torch.tensor([0.1, 0.2, 0.4]))
    assert bool((counts > 900).all())
    assert torch.equal(draw_radii((0.1,), 4, _generator(), CPU), torch.full((4,), 0.1))


@pytest.mark.parametrize("name", CRAFTED_BY)
def test_examples_stay_in_their_balls_and_fool_the_net(name: str, undefended: TrainedNet) -> None:
    x, y = undefended.x[:64], undefended.y[:64]
    radii = draw_radii((0.05, EPS), len(x), _generator(), CPU)
    attacked = craft(
        undefended.model, x, y, attack_name=name, radii=radii, steps=5, generator=_generator()
    )
    assert bool(((attacked - x).flatten(1).abs().amax(1) <= radii + 1e-6).all())
    assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1
    fooled = accuracy(undefended.model, attacked, y)
    assert fooled < accuracy(undefended.model, x, y) - 0.2


def test_examples_are_the_attacks_own_last_iterates(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:64], undefended.y[:64]
    radii = torch.full((64,), EPS)

    def crafted(name: str) -> torch.Tensor:
        return craft(model, x, y, attack_name=name, radii=radii, steps=7, generator=_generator())

    assert torch.equal(crafted("fgsm"), fgsm(model, x, y, eps=radii))
    assert torch.equal(crafted("bim"), bim(model, x, y, eps=radii, steps=7, early_stop=False))
    stopped = bim(model, x, y, eps=radii, steps=7, early_stop=True)
    assert not torch.equal(crafted("bim"), stopped)


@pytest.mark.parametrize("name", CRAFTED_BY)
def test_crafting_leaves_a_net_in_training_as_it_was(name: str) -> None:
    model = norm_net()
    before, x, y = state_of(model), torch.rand(8, 1, 4, 4, generator=_generator()), torch.arange(8)
    radii = torch.full((8,), 0.1)
    craft(model, x, y, attack_name=name, radii=radii, steps=2, generator=_generator())
    assert is_untouched(model, before)


def test_train_mode_normalises_by_the_batch_but_moves_no_statistics() -> None:
    model = norm_net()
    before, x = state_of(model), torch.rand(8, 1, 4, 4, generator=_generator())
    with frozen_in_train_mode(model.eval()):
        found = model(x)
        assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training
    assert is_untouched(model.train(), before)
    expected = model(x)  # moves the statistics
    assert torch.equal(found, expected)
    assert not is_untouched(model, before)
    assert not torch.allclose(model.eval()(x), expected, atol=1e-3)


def test_train_mode_is_left_when_the_work_in_it_fails() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    with pytest.raises(ZeroDivisionError), frozen_in_train_mode(model):
        raise ZeroDivisionError
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm1d) and norm.track_running_stats and not norm.training
