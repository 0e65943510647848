"""What every attack keeps to, over one table with a row for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy
from trainables.attacks import ATTACKS
from trainables.attacks.balls import BALLS
from trainables.attacks.registry import KEYWORDS, attack_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An attack with what is to be known of it to hold it to the contract."""

    name: str
    norm: str = "linf"
    eps: float = EPS
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings without randomness, under which an image's result hangs on that image alone."""

    def __str__(self) -> str:
        return "-".join([self.name, self.norm, *map(str, self.settings.values())])

    def run(self, model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
        """Attack with the row's settings and a seed."""
        settings = {"eps": self.eps, **self.settings, **changes}
        generator = torch.Generator().manual_seed(settings.pop("seed", 0))
        return ATTACKS[self.name](model, x, y, generator=generator, **settings)


ROWS = [
    Row(name="fgsm"),
    Row(name="fgsm", settings={"random_start": True}, fixed={"random_start": False}),
    Row(name="pgd", fixed={"random_start": False}),
    Row(name="pgd", settings={"restarts": 3}, fixed={"random_start": False, "restarts": 1}),
    Row(name="pgd", norm="l2", eps=0.8, settings={"norm": "l2"}, fixed={"random_start": False}),
    Row(name="targeted_margin_pgd"),
    Row(name="targeted_margin_pgd", norm="l2", eps=0.8, settings={"norm": "l2"}),
]
every_attack = pytest.mark.parametrize("row", ROWS, ids=str)
both_stops = pytest.mark.parametrize("early_stop", [False, True], ids=["all-steps", "early-stop"])


def _lengths(delta: Tensor, norm: str) -> Tensor:
    order = {"linf": torch.inf, "l2": 2}[norm]
    lengths: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return lengths


def test_every_attack_has_a_row_for_each_of_its_norms() -> None:
    assert {row.name for row in ROWS} == set(ATTACKS)
    for name, function in ATTACKS.items():
        takes_norm = "norm" in attack_facts(function).parameters
        norms = {row.norm for row in ROWS if row.name == name}
        assert norms == (set(BALLS) if takes_norm else {"linf"}), name


def test_every_attack_has_meaning_source_and_known_keywords() -> None:
    for name, function in ATTACKS.items():
        facts = attack_facts(function)
        assert facts.meaning and facts.source, name
        assert set(facts.parameters) <= set(KEYWORDS), name


@both_stops
@every_attack
def test_images_keep_shape_ball_and_pixel_range(
    row: Row, early_stop: bool, undefended: TrainedNet
) -> None:
    x, y = undefended.x[:64], undefended.y[:64]
    attacked = row.run(undefended.model, x, y, early_stop=early_stop)
    assert attacked.shape == x.shape and attacked.dtype == x.dtype
    assert not attacked.requires_grad
    assert float(_lengths(attacked - x, row.norm).max()) <= row.eps + 1e-6
    assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1


@both_stops
@every_attack
def test_the_clean_images_are_not_changed_in_place(
    row: Row, early_stop: bool, undefended: TrainedNet
) -> None:
    x, y = undefended.x[:16].clone(), undefended.y[:16].clone()
    row.run(undefended.model, x, y, early_stop=early_stop)
    assert torch.equal(x, undefended.x[:16]) and torch.equal(y, undefended.y[:16])
    assert not x.requires_grad


@both_stops
@every_attack
def test_a_radius_of_zero_gives_the_images_back(
    row: Row, early_stop: bool, undefended: TrainedNet
) -> None:
    x, y = undefended.x[:32], undefended.y[:32]
    assert torch.equal(row.run(undefended.model, x, y, eps=0.0, early_stop=early_stop), x)


@every_attack
def test_the_same_seed_gives_the_same_images(row: Row, undefended: TrainedNet) -> None:
    x, y = undefended.x[:32], undefended.y[:32]
    first = row.run(undefended.model, x, y, seed=1)
    torch.rand(3)  # the global generator has no part in it
    assert torch.equal(row.run(undefended.model, x, y, seed=1), first)
    if row.fixed:
        other = row.run(undefended.model, x, y, seed=2, early_stop=False)
        assert not torch.equal(other, row.run(undefended.model, x, y, seed=1, early_stop=False))


@both_stops
@every_attack
def test_each_image_may_have_a_radius_of_its_own(
    row: Row, early_stop: bool, undefended: TrainedNet
) -> None:
    x, y = undefended.x[:48], undefended.y[:48]
    eps = torch.tensor([0.0, row.eps / 2, row.eps]).repeat(16)
    attacked = row.run(undefended.model, x, y, eps=eps, early_stop=early_stop)
    lengths = _lengths(attacked - x, row.norm)
    assert bool((lengths <= eps + 1e-6).all())
    assert torch.equal(attacked[::3], x[::3])
    assert float(lengths[2::3].max()) > row.eps / 2 + 1e-3


@both_stops
@every_attack
def test_equal_radii_give_what_one_radius_gives(
    row: Row, early_stop: bool, undefended: TrainedNet
) -> None:
    x, y = undefended.x[:32], undefended.y[:32]
    each = torch.full((32,), row.eps)
    first = row.run(undefended.model, x, y, eps=each, early_stop=early_stop)
    second = row.run(undefended.model, x, y, early_stop=early_stop)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [False, True])
@every_attack
def test_mode_parameters_and_gradients_of_the_model_stay(
    row: Row, training: bool, undefended: TrainedNet
) -> None:
    norm, linear = nn.BatchNorm1d(64), nn.Linear(64, 10)
    model = nn.Sequential(nn.Flatten(), norm, nn.Dropout(), linear).train(training)
    linear.weight.grad = torch.ones_like(linear.weight)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    row.run(model, undefended.x[:16], undefended.y[:16], early_stop=False)
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_parameters())
    assert torch.equal(linear.weight.grad, torch.ones_like(linear.weight))
    assert linear.bias.grad is None and norm.weight.grad is None


@every_attack
def test_an_attack_works_where_gradients_are_switched_off(row: Row, undefended: TrainedNet) -> None:
    x, y = undefended.x[:16], undefended.y[:16]
    expected = row.run(undefended.model, x, y)
    with torch.no_grad():
        assert torch.equal(row.run(undefended.model, x, y), expected)


@every_attack
def test_stopping_early_breaks_at_least_as_many(row: Row, hardened: TrainedNet) -> None:
    model, x, y = hardened.model, hardened.x[:90], hardened.y[:90]
    stopped = accuracy(model, row.run(model, x, y, early_stop=True), y)
    assert stopped <= accuracy(model, row.run(model, x, y, early_stop=False), y)


@every_attack
def test_attacks_break_an_undefended_net(row: Row, undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:90], undefended.y[:90]
    clean = accuracy(model, x, y)
    assert clean > 0.95
    assert accuracy(model, row.run(model, x, y), y) < clean - 0.3


@both_stops
@every_attack
def test_an_image_does_not_depend_on_its_batch_mates(
    row: Row, early_stop: bool, undefended: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x[:24], undefended.y[:24]
    settings = {**row.fixed, "early_stop": early_stop}
    together = row.run(model, x, y, **settings)
    alone = torch.cat([row.run(model, x[i : i + 1], y[i : i + 1], **settings) for i in range(24)])
    # Sums are rounded otherwise in another batch; twenty L2 steps carry some of that along.
    torch.testing.assert_close(alone, together, atol=1e-6 if row.norm == "linf" else 1e-3, rtol=0)


@every_attack
def test_a_batch_that_is_wrong_already_is_survived(row: Row, undefended: TrainedNet) -> None:
    x, wrong = undefended.x[:8], (undefended.y[:8] + 1) % 10
    attacked = row.run(undefended.model, x, wrong, early_stop=True)
    assert attacked.shape == x.shape
    assert accuracy(undefended.model, attacked, wrong) <= accuracy(undefended.model, x, wrong)


@pytest.mark.parametrize("num_classes", [2, 3])
@every_attack
def test_few_classes_are_enough(row: Row, num_classes: int, undefended: TrainedNet) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    y = undefended.y[:16] % num_classes
    attacked = row.run(model, undefended.x[:16], y)
    assert accuracy(model, attacked, y) <= accuracy(model, undefended.x[:16], y)
