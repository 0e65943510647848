"""What attacks go by where a gradient is not finite."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainables.attacks.shared.balls import BALLS
from trainables.attacks.shared.gradients import usable, usable_slopes

INF, NAN = torch.inf, torch.nan


def _images(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[:, None, None, :]


@pytest.mark.parametrize("function", [usable, usable_slopes])
def test_finite_gradients_stay_bit_for_bit_whatever_their_batch(
    function: Callable[[Tensor], Tensor],
) -> None:
    drawn = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([0.0, 1e-30, 1.0, 1e-3, 1e15])[:, None, None, None]
    gradients = torch.cat([drawn * scales, torch.full((1, 3, 4, 4), NAN)])
    assert torch.equal(function(gradients)[:5], gradients[:5])


@pytest.mark.parametrize(
    ("row", "signs"),
    [
        ([INF, -3.0, 0.0, 0.5], [1, -1, 0, 1]),
        ([-INF, NAN, 2.0, -2.0], [-1, 0, 1, -1]),
        ([NAN, NAN, NAN, NAN], [0, 0, 0, 0]),
        ([3e38, 3e38, -1.0, 0.0], [1, 1, -1, 0]),  # its length overflows float32
    ],
)
def test_what_is_not_finite_falls_back_to_its_signs_image_by_image(
    row: list[float], signs: list[float]
) -> None:
    found = usable(_images(row, [1.0, 2.0, 3.0, 4.0]))
    assert torch.equal(found, _images([float(sign) for sign in signs], [1.0, 2.0, 3.0, 4.0]))
    for ball in BALLS.values():
        assert bool(ball.direction(found).isfinite().all())


def test_a_slope_along_signs_is_that_of_the_finite_entries() -> None:
    gradients = _images([INF, -2.0, 4.0, NAN], [INF, 0.0, -INF, NAN], [3e38, 3e38, 0.0, 0.0])
    found = usable_slopes(gradients)
    # Along (1, -1, 1) the finite entries rise by 6 for a way of sqrt(3).
    assert torch.allclose(found[0], _images([2.0, -2.0, 2.0, 0.0])[0])
    assert float(found[0].norm()) == pytest.approx(6 / 3**0.5)
    assert torch.equal(found[1], _images([1.0, 0.0, -1.0, 0.0])[0])
    assert bool(found[2].norm().isfinite()) and bool((found[2].flatten()[:2] > 0).all())
