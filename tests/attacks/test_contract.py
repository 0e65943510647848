"""What every attack keeps to, over one table with a row for each.

A clause that hangs on a keyword (eps, early_stop) runs over the rows whose attack takes it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy
from trainables.attacks import ATTACKS, attack
from trainables.attacks.registry import KEYWORDS, keywords_of
from trainables.attacks.shared.balls import BALLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An attack with what is to be known of it to hold it to the contract."""

    name: str
    norm: str = "linf"
    eps: float = EPS
    """Radius, for attacks that take one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings without randomness, under which an image's result hangs on that image alone."""
    random: bool = False
    """Whether it draws under any settings, so that an image's draws hang on its batch."""
    breaks: float = 0.3
    """Accuracy that it takes from an undefended net at least."""
    images: int = 90
    """Images that a test attacks at most: fewer for a slow attack."""
    tolerance: float = 1e-6
    """How far rounding in another batch may carry a pixel."""

    def __str__(self) -> str:
        return "-".join([self.name, self.norm, *map(str, self.settings.values())])

    def takes(self, keyword: str) -> bool:
        """Return whether the attack takes a keyword."""
        return keyword in inspect.signature(attack(self.name)).parameters

    @property
    def radius(self) -> float:
        """How far an image may be moved: the ball's radius, a number of pixels, or anywhere."""
        if self.takes("pixels"):
            return float(self.settings["pixels"])
        return self.eps if self.takes("eps") else torch.inf

    @property
    def radius_per_image(self) -> bool:
        """Whether the radius may be one per image: its type says so."""
        eps = inspect.signature(attack(self.name)).parameters.get("eps")
        return eps is not None and eps.annotation is not float

    @property
    def stops(self) -> list[dict[str, bool]]:
        """Ways to stop: both values of early_stop for an attack that takes it."""
        both = [{"early_stop": False}, {"early_stop": True}]
        return both if self.takes("early_stop") else [{}]

    def run(
        self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, **changes: Any
    ) -> Tensor:
        """Attack with the row's settings and a seed; a surrogate is the model itself."""
        given: dict[str, Any] = {"eps": self.eps} if self.takes("eps") else {}
        if self.takes("surrogate"):
            given["surrogate"] = model
        settings = {**given, **self.settings, **changes}
        generator = torch.Generator(x.device).manual_seed(settings.pop("seed", 0))
        return attack(self.name)(model, x, y, generator=generator, **settings)


ROWS = [
    Row(name="fgsm"),
    Row(name="fgsm", settings={"random_start": True}, fixed={"random_start": False}),
    Row(name="pgd", fixed={"random_start": False}),
    Row(name="pgd", settings={"restarts": 3}, fixed={"random_start": False, "restarts": 1}),
    # Sums are rounded otherwise in another batch; twenty L2 steps carry some of that along.
    Row(
        name="pgd",
        norm="l2",
        eps=0.8,
        settings={"norm": "l2"},
        fixed={"random_start": False},
        tolerance=1e-3,
    ),
    Row(name="targeted_margin_pgd"),
    Row(name="targeted_margin_pgd", norm="l2", eps=0.8, settings={"norm": "l2"}, tolerance=1e-3),
    Row(name="detector_aware_pgd", settings={"steps": 20}, fixed={"random_start": False}),
    Row(
        name="detector_aware_pgd",
        norm="l2",
        eps=0.8,
        settings={"norm": "l2", "steps": 20},
        fixed={"random_start": False},
        tolerance=1e-3,
    ),
    Row(name="bim"),
    # Wide balls, and few images: what resists costs AutoAttack seconds.
    Row(name="autoattack", eps=0.6, random=True, images=24),
    Row(name="autoattack", norm="l2", eps=5.0, settings={"norm": "l2"}, random=True, images=24),
    Row(name="square", settings={"steps": 100}, random=True),
    Row(name="square", norm="l2", eps=0.8, settings={"norm": "l2", "steps": 100}, random=True),
    Row(name="few_pixel", norm="l0", settings={"pixels": 3, "steps": 100}, random=True),
    # What it breaks of an image hangs on its start and on few labels: wide balls, few images.
    Row(name="hop_skip_jump", eps=0.4, settings={"steps": 3, "draws": 20}, random=True, images=24),
    Row(
        name="hop_skip_jump",
        norm="l2",
        eps=2.5,
        settings={"norm": "l2", "steps": 3, "draws": 20},
        random=True,
        images=24,
    ),
    Row(name="transfer", fixed={"random_start": False}),
    Row(
        name="transfer",
        norm="l2",
        eps=0.8,
        settings={"norm": "l2"},
        fixed={"random_start": False},
        tolerance=1e-3,
    ),
    Row(name="random_noise", eps=0.4, settings={"draws": 30}, random=True),
    Row(
        name="random_noise",
        norm="l2",
        eps=4.0,
        settings={"norm": "l2", "draws": 30},
        random=True,
    ),
    Row(name="deepfool", norm="l2", tolerance=1e-3),
    Row(
        name="carlini_wagner",
        norm="l2",
        settings={"steps": 40, "search_steps": 3, "step_size": 0.1, "initial_const": 3.0},
        tolerance=1e-2,
    ),
    Row(name="lbfgs", norm="l2", settings={"steps": 12, "search_steps": 3}, tolerance=1e-2),
]
STOPS = [(row, stop) for row in ROWS for stop in row.stops]


def _over(*pairs: tuple[Row, dict[str, bool]]) -> pytest.MarkDecorator:
    names = {False: "all-steps", True: "early-stop"}
    ids = ["-".join([str(row), *(names[value] for value in stop.values())]) for row, stop in pairs]
    return pytest.mark.parametrize(("row", "stop"), pairs, ids=ids)


every_attack = pytest.mark.parametrize("row", ROWS, ids=str)
attacks_that_may_stop_early = pytest.mark.parametrize(
    "row", [row for row in ROWS if row.takes("early_stop")], ids=str
)
minimum_norm_attacks = pytest.mark.parametrize(
    "row", [row for row in ROWS if row.radius == torch.inf], ids=str
)
every_stop = _over(*STOPS)
every_stop_in_a_ball = _over(*(pair for pair in STOPS if pair[0].takes("eps")))
every_stop_with_radii = _over(*(pair for pair in STOPS if pair[0].radius_per_image))
every_stop_without_draws = _over(*(pair for pair in STOPS if not pair[0].random))


def _lengths(delta: Tensor, norm: str) -> Tensor:
    if norm == "l0":  # a pixel counts once, whichever of its channels changed
        return delta.ne(0).any(1).flatten(1).sum(1)
    order = {"linf": torch.inf, "l2": 2}[norm]
    lengths: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return lengths


def _some(trained: TrainedNet, row: Row, count: int) -> tuple[Tensor, Tensor]:
    count = min(count, row.images)
    return trained.x[:count], trained.y[:count]


def test_every_attack_has_a_row_for_each_of_its_norms() -> None:
    assert {row.name for row in ROWS} == set(ATTACKS)
    for name, entry in ATTACKS.items():
        takes_norm = "norm" in keywords_of(entry.function)
        norms = {row.norm for row in ROWS if row.name == name}
        assert norms == (set(BALLS) if takes_norm else {entry.norm}), name


def test_every_attack_has_meaning_source_and_known_keywords() -> None:
    for name, entry in ATTACKS.items():
        assert entry.meaning and entry.source, name
        assert set(keywords_of(entry.function)) <= set(KEYWORDS), name


@every_stop
def test_images_keep_shape_ball_and_pixel_range(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    x, y = _some(undefended, row, 64)
    attacked = row.run(undefended.model, x, y, **stop)
    assert attacked.shape == x.shape and attacked.dtype == x.dtype
    assert not attacked.requires_grad
    assert float(_lengths(attacked - x, row.norm).max()) <= row.radius + 1e-6
    assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1


@every_stop
def test_the_clean_images_are_not_changed_in_place(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    x, y = undefended.x[:16].clone(), undefended.y[:16].clone()
    row.run(undefended.model, x, y, **stop)
    assert torch.equal(x, undefended.x[:16]) and torch.equal(y, undefended.y[:16])
    assert not x.requires_grad


@every_stop_in_a_ball
def test_a_radius_of_zero_gives_the_images_back(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    x, y = _some(undefended, row, 32)
    assert torch.equal(row.run(undefended.model, x, y, eps=0.0, **stop), x)


@every_attack
def test_the_same_seed_gives_the_same_images(row: Row, undefended: TrainedNet) -> None:
    x, y = _some(undefended, row, 32)
    first = row.run(undefended.model, x, y, seed=1)
    torch.rand(3)  # the global generator has no part in it
    assert torch.equal(row.run(undefended.model, x, y, seed=1), first)
    if row.fixed or row.random:
        stop = row.stops[0]
        other = row.run(undefended.model, x, y, seed=2, **stop)
        assert not torch.equal(other, row.run(undefended.model, x, y, seed=1, **stop))


@every_stop_with_radii
def test_each_image_may_have_a_radius_of_its_own(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    x, y = _some(undefended, row, 48)
    eps = torch.tensor([0.0, row.eps / 2, row.eps]).repeat(len(x))[: len(x)]
    attacked = row.run(undefended.model, x, y, eps=eps, **stop)
    lengths = _lengths(attacked - x, row.norm)
    assert bool((lengths <= eps + 1e-6).all())
    assert torch.equal(attacked[::3], x[::3])
    assert float(lengths[2::3].max()) > row.eps / 2 + 1e-3


@every_stop_with_radii
def test_equal_radii_give_what_one_radius_gives(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    x, y = _some(undefended, row, 32)
    each = torch.full((len(x),), row.eps)
    first = row.run(undefended.model, x, y, eps=each, **stop)
    second = row.run(undefended.model, x, y, **stop)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [False, True])
@every_attack
def test_mode_parameters_and_gradients_of_the_model_stay(
    row: Row, training: bool, undefended: TrainedNet
) -> None:
    # Norm per channel, so that a batch may shrink to one image.
    norm, linear = nn.BatchNorm2d(1), nn.Linear(64, 10)
    model = nn.Sequential(norm, nn.Flatten(), nn.Dropout(), linear).train(training)
    linear.weight.grad = torch.ones_like(linear.weight)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    row.run(model, undefended.x[:16], undefended.y[:16], **row.stops[0])
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_parameters())
    assert torch.equal(linear.weight.grad, torch.ones_like(linear.weight))
    assert linear.bias.grad is None and norm.weight.grad is None


@every_attack
def test_an_attack_works_where_gradients_are_switched_off(row: Row, undefended: TrainedNet) -> None:
    x, y = _some(undefended, row, 16)
    expected = row.run(undefended.model, x, y)
    with torch.no_grad():
        assert torch.equal(row.run(undefended.model, x, y), expected)


@attacks_that_may_stop_early
def test_stopping_early_breaks_at_least_as_many(row: Row, hardened: TrainedNet) -> None:
    model, (x, y) = hardened.model, _some(hardened, row, 90)
    stopped = accuracy(model, row.run(model, x, y, early_stop=True), y)
    assert stopped <= accuracy(model, row.run(model, x, y, early_stop=False), y)


@every_attack
def test_attacks_break_an_undefended_net(row: Row, undefended: TrainedNet) -> None:
    model, (x, y) = undefended.model, _some(undefended, row, 90)
    clean = accuracy(model, x, y)
    assert clean > 0.95
    assert accuracy(model, row.run(model, x, y), y) <= clean - row.breaks


@every_stop_without_draws
def test_an_image_does_not_depend_on_its_batch_mates(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    model, (x, y) = undefended.model, _some(undefended, row, 24)
    settings = {**row.fixed, **stop}
    together = row.run(model, x, y, **settings)
    alone = torch.cat(
        [row.run(model, x[i : i + 1], y[i : i + 1], **settings) for i in range(len(x))]
    )
    torch.testing.assert_close(alone, together, atol=row.tolerance, rtol=0)


@every_attack
def test_a_batch_that_is_wrong_already_is_survived(row: Row, undefended: TrainedNet) -> None:
    x, wrong = undefended.x[:8], (undefended.y[:8] + 1) % 10
    attacked = row.run(undefended.model, x, wrong, **row.stops[-1])
    assert attacked.shape == x.shape
    assert accuracy(undefended.model, attacked, wrong) <= accuracy(undefended.model, x, wrong)


@pytest.mark.parametrize("num_classes", [2, 3])
@every_attack
def test_few_classes_are_enough(row: Row, num_classes: int, undefended: TrainedNet) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    y = undefended.y[:16] % num_classes
    attacked = row.run(model, undefended.x[:16], y)
    assert accuracy(model, attacked, y) <= accuracy(model, undefended.x[:16], y)


class Cut(nn.Module):
    """A model whose scores no gradient reaches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        scores: Tensor = self.model(x)
        return scores.detach()


@every_stop
def test_scores_that_no_gradient_reaches_are_survived(
    row: Row, stop: dict[str, bool], undefended: TrainedNet
) -> None:
    x, y = _some(undefended, row, 16)
    attacked = row.run(Cut(undefended.model), x, y, **stop)
    assert float(_lengths(attacked - x, row.norm).max()) <= row.radius + 1e-6
    assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1


@minimum_norm_attacks
def test_images_that_no_gradient_moves_are_given_back_clean(
    row: Row, undefended: TrainedNet
) -> None:
    x, y = _some(undefended, row, 16)
    assert torch.equal(row.run(Cut(undefended.model), x, y), x)


@minimum_norm_attacks
def test_each_image_is_misclassified_on_its_own_or_given_back_clean(
    row: Row, undefended: TrainedNet
) -> None:
    model, (x, y) = undefended.model, _some(undefended, row, 90)
    y = y.clone()
    y[::7] = (y[::7] + 1) % 10  # wrong before any attack: nothing needs to be moved
    attacked = row.run(model, x, y)
    moved = (attacked != x).flatten(1).any(1)
    wrong = torch.cat([model(image[None]).argmax(1) for image in attacked]) != y
    assert torch.equal(moved, wrong & (model(x).argmax(1) == y))
    assert float(moved.double().mean()) > 0.7
