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
from tests.making import EPS, accuracy
from trainables.defenses.training.dynamic_mixed_batch import DynamicMixedBatch


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mixed(net: TrainedNet, defense: DynamicMixedBatch, count: int, seed: int = 0) -> torch.Tensor:
    view = clean_view(net.x[:count], net.y[:count])
    views = defense.views(net.model, [view], _generator(seed))
    assert len(views) == 1 and views[0].weight == 1.0
    assert torch.equal(views[0].target, view.target)
    assert torch.equal(view.x, net.x[:count])
    return views[0].x


@pytest.mark.parametrize("attack", ["fgsm", "bim", "pgd"])
@pytest.mark.parametrize(("fraction", "count", "expected"), [(0, 16, 0), (0.5, 32, 16),
                                                             (0.3, 7, 2), (1, 9, 9)])  # fmt: skip
def test_so_many_images_of_a_batch_are_attacked(
    fraction: float, count: int, expected: int, attack: str, undefended: TrainedNet
) -> None:
    defense = DynamicMixedBatch(attack=attack, eps=(EPS,), fraction=fraction, steps=3)
    far = (_mixed(undefended, defense, count) - undefended.x[:count]).flatten(1).abs().amax(1)
    assert int((far > 0).sum()) == expected
    assert bool((far <= EPS + 1e-6).all())


def test_other_images_are_attacked_in_another_batch(undefended: TrainedNet) -> None:
    def attacked(seed: int) -> torch.Tensor:
        found = _mixed(undefended, DynamicMixedBatch(eps=(EPS,)), 64, seed)
        return (found != undefended.x[:64]).flatten(1).any(1)

    assert torch.equal(attacked(0), attacked(0))
    assert not torch.equal(attacked(0), attacked(1))


def test_of_a_set_each_image_draws_its_own_radius(undefended: TrainedNet) -> None:
    defense = DynamicMixedBatch(eps=(0.05, 0.2), fraction=1)
    found = _mixed(undefended, defense, len(undefended.x))
    far = (found - undefended.x).flatten(1).abs().amax(1)
    near = (far - 0.05).abs() < 1e-6
    assert bool((near | ((far - 0.2).abs() < 1e-6)).all())
    assert 0.4 < float(near.double().mean()) < 0.6


def test_examples_are_of_the_current_weights(undefended: TrainedNet, hardened: TrainedNet) -> None:
    defense = DynamicMixedBatch(attack="bim", eps=(EPS,), fraction=1)
    assert not torch.equal(_mixed(undefended, defense, 32), _mixed(hardened, defense, 32))
    assert accuracy(undefended.model, _mixed(undefended, defense, 64), undefended.y[:64]) < 0.5


def test_crafting_leaves_a_net_in_training_as_it_was() -> None:
    model = norm_net()
    before, x = state_of(model), torch.rand(8, 1, 4, 4, generator=_generator())
    DynamicMixedBatch(attack="pgd", eps=(0.1,), steps=2).views(
        model, [clean_view(x, torch.arange(8))], _generator()
    )
    assert is_untouched(model, before)


def test_it_makes_a_net_more_robust(undefended: TrainedNet, artefact_folder: Path) -> None:
    net = trained_with(DynamicMixedBatch(attack="bim", eps=(EPS,), steps=5), folder=artefact_folder)
    assert accuracy(net.model, net.x, net.y) > 0.93
    assert robust_accuracy(net) > robust_accuracy(undefended) + 0.3
