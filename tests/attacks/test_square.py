from collections.abc import Callable

import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor

from tests.attacks.shared.asked import ScoresOnly
from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax, accuracy
from trainables.attacks.queries import square as square_module
from trainables.attacks.queries.square import _corners, _pyramid, _window_side, square
from trainables.attacks.shared.batching import BATCH
from trainables.errors import InputError

SEEDS = range(3)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _theirs(trained: TrainedNet, norm: str, eps: float, steps: int, seed: int) -> Tensor:
    """Attack with the square attack of AutoAttack's authors at as many queries."""
    runner = AutoAttack(
        trained.model, attacks=["square"], eps=eps, norm=norm, seed=seed, version="custom"
    )
    runner.square.n_queries, runner.square.rescale_schedule = steps, True
    with torch.random.fork_rng(devices=[]):
        found, _ = runner.run_standard_evaluation(trained.x, trained.y, batch_size=BATCH)
    assert isinstance(found, Tensor)
    return found


@pytest.fixture
def windows_of_the_authors(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let windows stop short of the last row and column, as in the authors' code."""

    def short(count: int, most: int, generator: torch.Generator) -> Tensor:
        return _corners(count, max(most - 1, 0), generator)

    return lambda: monkeypatch.setattr(square_module, "_corners", short)


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.8)])
def test_it_breaks_what_the_authors_code_breaks_at_equal_queries(
    norm: str, eps: float, undefended: TrainedNet, windows_of_the_authors: Callable[[], None]
) -> None:
    model, x, y, steps = undefended.model, undefended.x, undefended.y, 300

    def ours() -> float:
        runs = [
            square(model, x, y, eps=eps, norm=norm, steps=steps, generator=_generator(seed))
            for seed in SEEDS
        ]
        return sum(accuracy(model, run, y) for run in runs) / len(SEEDS)

    name = {"linf": "Linf", "l2": "L2"}[norm]
    runs = [_theirs(undefended, name, eps, steps, seed) for seed in SEEDS]
    theirs = sum(accuracy(model, run, y) for run in runs) / len(SEEDS)
    # The paper lets a window lie anywhere; the authors' code never reaches the last row or column,
    # which on images of 8 x 8 is worth points.
    if norm == "linf":
        assert ours() < theirs
    windows_of_the_authors()
    # Never the weaker one. Three seeds leave 0.01 to chance; over 16 of them ours broke 0.016 more
    # in L2.
    assert -0.05 < ours() - theirs < 0.02


def test_the_linf_start_is_vertical_stripes_on_the_border_of_the_ball() -> None:
    x, y = torch.full((4, 3, 6, 5), 0.5), torch.zeros(4, dtype=torch.int64)
    model = LinearSoftmax(90, 3)
    start = square(model, x, y, eps=0.1, steps=0, early_stop=False, generator=_generator())
    torch.testing.assert_close((start - x).abs(), torch.full_like(x, 0.1), atol=1e-6, rtol=0)
    assert torch.equal(start, start[:, :, :1].expand_as(start))
    assert len(set(start.flatten().tolist())) == 2


def test_the_l2_search_stays_on_the_border_of_the_ball() -> None:
    x, y = torch.full((4, 3, 11, 11), 0.5), torch.zeros(4, dtype=torch.int64)
    model = LinearSoftmax(363, 3)
    for steps in (0, 30):
        moved = square(
            model, x, y, eps=0.7, norm="l2", steps=steps, early_stop=False, generator=_generator()
        )
        lengths = (moved - x).flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((4,), 0.7), atol=1e-5, rtol=0)


def test_the_window_shrinks_on_the_schedule_of_the_paper() -> None:
    # Table of the paper for 10,000 steps: p is halved after these steps, from 0.8.
    area = 100 * 100
    for step, halvings in ((0, 0), (10, 0), (11, 1), (51, 2), (201, 3), (8001, 9)):
        assert _window_side(step, 10_000, area, 1) == round((0.8 / 2**halvings * area) ** 0.5)
    assert _window_side(500, 1000, area, 1) == _window_side(5000, 10_000, area, 1)
    assert _window_side(9999, 10_000, 16, 3) == 3


def test_the_bump_is_the_paper_s() -> None:
    # Eq. 2: sum of 1 / (n + 1 - k)^2 for k from 0 to the rings between a place and the border.
    expected = torch.tensor([[1 / 4, 1 / 4, 1 / 4], [1 / 4, 5 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 4]])
    torch.testing.assert_close(_pyramid(3, 3, torch.device("cpu")), expected)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_queries_are_counted_image_by_image(
    norm: str, early_stop: bool, undefended: TrainedNet
) -> None:
    x, y, steps = undefended.x[:12], undefended.y[:12], 20
    for image in range(len(x)):
        model, queries = ScoresOnly(undefended.model), torch.zeros(1, dtype=torch.int64)
        rows = slice(image, image + 1)
        square(model, x[rows], y[rows], eps=0.3, norm=norm, steps=steps, early_stop=early_stop,
               queries=queries, generator=_generator())  # fmt: skip
        assert int(queries) == model.asked
        assert model.asked <= steps + 2
        if not early_stop:
            assert model.asked == steps + 1


def test_queries_are_filled_in_place_across_batches(undefended: TrainedNet) -> None:
    x, y = undefended.x.repeat(3, 1, 1, 1)[: BATCH + 20], undefended.y.repeat(3)[: BATCH + 20]
    model, queries = ScoresOnly(undefended.model), torch.full((len(x),), 5)
    attacked = square(model, x, y, eps=EPS, steps=3, queries=queries, generator=_generator())
    assert int(queries.sum()) - 5 * len(x) == model.asked
    assert int(queries[BATCH:].min()) > 5
    wrong = undefended.model(x).argmax(1) != y
    assert bool(wrong.any()) and torch.equal(attacked[wrong], x[wrong])
    assert bool((queries[wrong] == 6).all())


def test_more_steps_break_more(hardened: TrainedNet) -> None:
    model, x, y = hardened.model, hardened.x, hardened.y
    left = [
        accuracy(model, square(model, x, y, eps=EPS, steps=steps, generator=_generator()), y)
        for steps in (1, 30, 200)
    ]
    assert left[0] > left[1] > left[2]


def test_it_needs_a_generator_and_a_known_norm() -> None:
    model, x, y = LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="generator"):
        square(model, x, y, eps=0.1)
    with pytest.raises(InputError, match="linf, l2"):
        square(model, x, y, eps=0.1, norm="l7", generator=_generator())
