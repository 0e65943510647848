import pytest
import torch
from torch.nn import functional as F

from tests.attacks.shared.asked import ScoresOnly
from tests.conftest import TrainedNet
from tests.making import LinearSoftmax, accuracy
from trainables.attacks.queries.few_pixel import few_pixel
from trainables.attacks.shared.batching import BATCH
from trainables.attacks.shared.losses import margin
from trainables.errors import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("pixels", [1, 4, 100])
def test_no_more_pixels_change_than_allowed_and_to_corners_only(pixels: int) -> None:
    x = torch.rand(8, 3, 5, 5, generator=_generator()) * 0.8 + 0.1
    model, y = LinearSoftmax(75, 4), torch.arange(8) % 4
    attacked = few_pixel(
        model, x, y, pixels=pixels, steps=60, early_stop=False, generator=_generator()
    )
    changed = (attacked != x).any(1)
    assert int(changed.flatten(1).sum(1).max()) <= pixels
    assert bool(changed.flatten(1).any(1).all())
    values = attacked.movedim(1, -1)[changed]
    assert bool(((values == 0) | (values == 1)).all())


def test_a_black_or_white_pixel_is_never_overwritten_with_itself() -> None:
    x = torch.randint(2, (6, 1, 4, 4), generator=_generator()).float()
    model, y = ScoresOnly(LinearSoftmax(16, 3)), torch.arange(6) % 3
    few_pixel(model, x, y, pixels=1, steps=40, early_stop=False, generator=_generator())
    assert all(bool(((asked != x).flatten(1).sum(1) == 1).all()) for asked in model.images)


def test_the_best_single_pixel_of_a_linear_model_is_found() -> None:
    model = LinearSoftmax(16, 2, seed=4)
    x = torch.rand(20, 1, 4, 4, generator=_generator()) * 0.8 + 0.1
    y = torch.arange(20) % 2
    attacked = few_pixel(model, x, y, pixels=1, steps=320, early_stop=False, generator=_generator())
    towards = (model.weight[1 - y] - model.weight[y]).detach()
    flat = x.flatten(1)
    gain = torch.maximum(towards * (0 - flat), towards * (1 - flat)).amax(1)
    with torch.no_grad():
        best = margin(model(x), y) + gain
        torch.testing.assert_close(margin(model(attacked), y), best, atol=1e-5, rtol=0)


def test_every_place_is_visited_once_before_any_is_visited_twice() -> None:
    # Score 1 of a model that sees one place alone: as many steps as there are places will do.
    for place in range(16):
        weight = F.one_hot(torch.tensor(place), 16).float()
        x, y = torch.zeros(1, 1, 4, 4), torch.tensor([0])
        attacked = few_pixel(
            lambda images, w=weight: torch.stack(  # type: ignore[misc]
                [torch.full((len(images),), 0.5), images.flatten(1) @ w], dim=1
            ),
            x, y, pixels=1, steps=15, generator=_generator(place),
        )  # fmt: skip
        assert float(attacked.flatten()[place]) == 1 and float(attacked.sum()) == 1


def test_more_pixels_break_more(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:90], undefended.y[:90]
    left = [
        accuracy(model, few_pixel(model, x, y, pixels=pixels, steps=100, generator=_generator()), y)
        for pixels in (1, 2, 5)
    ]
    assert left[0] > left[1] > left[2]


@pytest.mark.parametrize("early_stop", [False, True])
def test_queries_are_counted_image_by_image(early_stop: bool, undefended: TrainedNet) -> None:
    x, y, steps = undefended.x[:12], undefended.y[:12], 20
    for image in range(len(x)):
        model, queries = ScoresOnly(undefended.model), torch.zeros(1, dtype=torch.int64)
        rows = slice(image, image + 1)
        few_pixel(model, x[rows], y[rows], pixels=2, steps=steps, early_stop=early_stop,
                  queries=queries, generator=_generator())  # fmt: skip
        assert int(queries) == model.asked
        assert model.asked <= steps + 2
        if not early_stop:
            assert model.asked == steps + 1


def test_queries_are_filled_in_place_across_batches(undefended: TrainedNet) -> None:
    x, y = undefended.x.repeat(3, 1, 1, 1)[: BATCH + 20], undefended.y.repeat(3)[: BATCH + 20]
    model, queries = ScoresOnly(undefended.model), torch.zeros(len(x), dtype=torch.int64)
    few_pixel(model, x, y, pixels=1, steps=3, queries=queries, generator=_generator())
    assert int(queries.sum()) == model.asked
    assert int(queries[BATCH:].min()) > 0


def test_it_needs_a_generator_and_a_pixel() -> None:
    model, x, y = LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="generator"):
        few_pixel(model, x, y)
    with pytest.raises(InputError, match="pixels must be 1 or more, not 0"):
        few_pixel(model, x, y, pixels=0, generator=_generator())
