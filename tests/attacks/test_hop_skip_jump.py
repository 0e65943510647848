from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
from torch import Tensor, nn

from tests.attacks.shared.asked import ScoresOnly
from tests.attacks.shared.comparing import by_foolbox
from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax, accuracy
from trainables.attacks.queries.hop_skip_jump import _Walk, hop_skip_jump
from trainables.errors import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LabelsOnly(nn.Module):
    """Answers with labels, and fails where a gradient could be asked for."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K), one of which is 1."""
        assert not torch.is_grad_enabled() and not x.requires_grad
        return torch.nn.functional.one_hot(self.model(x).argmax(1), 10).float()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_labels_are_all_that_it_takes(norm: str, undefended: TrainedNet) -> None:
    x, y = undefended.x[:8], undefended.y[:8]
    runs = [
        hop_skip_jump(model, x, y, eps=0.5, norm=norm, steps=2, draws=10, generator=_generator())
        for model in (undefended.model, LabelsOnly(undefended.model))
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_image_is_as_near_as_foolbox_s_at_equal_queries(
    norm: Literal["linf", "l2"], undefended: TrainedNet
) -> None:
    few = replace(undefended, x=undefended.x[:24], y=undefended.y[:24])
    right = few.model(few.x).argmax(1) == few.y
    # A ball that holds every image, and no early stop: the nearest image that was found.
    ours = hop_skip_jump(
        few.model, few.x, few.y, eps=8.0, norm=norm, steps=6, draws=100, early_stop=False,
        generator=_generator(),
    )  # fmt: skip
    theirs = HopSkipJumpAttack(steps=6, initial_gradient_eval_steps=100, constraint=norm)
    torch.manual_seed(0)
    order = {"linf": torch.inf, "l2": 2}[norm]
    lengths = [
        torch.linalg.vector_norm((images - few.x)[right].flatten(1), ord=order, dim=1).median()
        for images in (ours, by_foolbox(theirs, few))
    ]
    assert bool((few.model(ours).argmax(1) != few.y).all())
    # Their start is noise alone; 24 images leave some of the median to chance.
    assert lengths[0] <= 1.15 * lengths[1]


def test_queries_are_counted_and_bounded_as_stated(undefended: TrainedNet) -> None:
    steps, draws = 3, 10
    for image in range(4):
        x, y = undefended.x[image : image + 1], undefended.y[image : image + 1]
        model, queries = ScoresOnly(undefended.model), torch.full((1,), 7)
        hop_skip_jump(model, x, y, eps=0.01, steps=steps, draws=draws, queries=queries,
                      generator=_generator())  # fmt: skip
        assert int(queries) - 7 == model.asked
        probes = sum(-(-draws * step**0.5 // 1) for step in range(1, steps + 1))
        assert model.asked <= 1 + 20 + probes + 28 * (steps + 1)


def test_of_a_linear_border_it_finds_the_normal_and_the_nearest_point() -> None:
    model, side = LinearSoftmax(64, 2), 8
    weight = model.weight[1] - model.weight[0]
    x = torch.full((1, 1, side, side), 0.5)
    y = model(x).argmax(1)
    walk = _Walk(model, x, y, "l2", None, _generator())
    rows, start = walk.start(torch.tensor([0]))
    near = walk.border(start, rows)
    normal = walk.normal(near, rows, torch.tensor([0.01]), 4000).flatten()
    sign = 1.0 if int(y) == 0 else -1.0
    assert float(torch.cosine_similarity(normal, sign * weight, dim=0)) > 0.9
    nearest = hop_skip_jump(
        model, x, y, eps=8.0, norm="l2", steps=12, early_stop=False, generator=_generator()
    )
    scores = model(x)[0]
    distance = float((scores[1] - scores[0]).abs() / weight.norm())
    assert distance <= float((nearest - x).norm()) <= 1.3 * distance + 0.01


def test_images_that_a_detector_rejects_do_not_count(undefended: TrainedNet) -> None:
    x, y = undefended.x[:12], undefended.y[:12]

    def rejecting(images: Tensor) -> Tensor:
        scores: Tensor = undefended.model(images)
        bright = images.flatten(1).mean(1) > x.flatten(1).mean(1).max()
        return scores.masked_fill(bright[:, None], 0.0)

    attacked = hop_skip_jump(rejecting, x, y, eps=0.3, steps=3, generator=_generator())
    broken = undefended.model(attacked).argmax(1) != y
    assert bool(broken.any())
    limit = x.flatten(1).mean(1).max()
    assert float(attacked[broken].flatten(1).mean(1).max()) <= limit


def test_more_steps_break_more(hardened: TrainedNet) -> None:
    model, x, y = hardened.model, hardened.x[:40], hardened.y[:40]
    left = [
        accuracy(model, hop_skip_jump(model, x, y, eps=EPS, steps=n, generator=_generator()), y)
        for n in (1, 8)
    ]
    assert left[0] > left[1]


def test_it_needs_a_generator_and_a_known_norm() -> None:
    model, x, y = LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="generator"):
        hop_skip_jump(model, x, y, eps=0.1)
    with pytest.raises(InputError, match="linf, l2"):
        hop_skip_jump(model, x, y, eps=0.1, norm="l7", generator=_generator())
