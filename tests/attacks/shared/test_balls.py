import pytest
import torch

from trainables.attacks.shared.balls import BALLS, ball, broadcast
from trainables.errors import InputError

every_norm = pytest.mark.parametrize(("norm", "order"), [("linf", torch.inf), ("l2", 2)])


def test_every_norm_has_a_row() -> None:
    assert set(BALLS) == {"linf", "l2"}


@every_norm
def test_projection_keeps_what_is_inside_and_brings_the_rest_to_the_border(
    norm: str, order: float
) -> None:
    delta = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    radius = broadcast(before * torch.linspace(0.2, 1.8, 50), delta)
    projected = ball(norm).project(delta, radius)
    after = torch.linalg.vector_norm(projected.flatten(1), ord=order, dim=1)
    inside = before <= radius.flatten()
    assert 0 < int(inside.sum()) < 50
    assert torch.equal(projected[inside], delta[inside])
    torch.testing.assert_close(after[~inside], radius.flatten()[~inside])


@every_norm
def test_random_starts_fill_the_ball(norm: str, order: float) -> None:
    images, radius = torch.zeros(4000, 1, 1, 2), torch.tensor(2.0)
    start = ball(norm).start(images, radius, torch.Generator().manual_seed(0))
    lengths = torch.linalg.vector_norm(start.flatten(1), ord=order, dim=1)
    assert float(lengths.max()) <= 2 + 1e-6
    # In two dimensions a uniform point lies within half the radius one time in four.
    assert float((lengths < 1).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(start.mean(0), torch.zeros(1, 1, 2), atol=0.08)


@every_norm
def test_a_step_has_unit_length_and_climbs(norm: str, order: float) -> None:
    gradient = torch.randn(20, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    step = ball(norm).direction(gradient)
    lengths = torch.linalg.vector_norm(step.flatten(1), ord=order, dim=1)
    torch.testing.assert_close(lengths, torch.ones(20))
    gained = (step * gradient).flatten(1).sum(1)
    dual = torch.linalg.vector_norm(gradient.flatten(1), ord=1 if norm == "linf" else 2, dim=1)
    torch.testing.assert_close(gained, dual)


@every_norm
def test_no_gradient_gives_no_step(norm: str, order: float) -> None:
    assert torch.equal(ball(norm).direction(torch.zeros(2, 1, 2, 2)), torch.zeros(2, 1, 2, 2))
    assert torch.equal(
        ball(norm).project(torch.zeros(2, 1, 2, 2), torch.tensor(0.0)), torch.zeros(2, 1, 2, 2)
    )


def test_an_unknown_norm_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown norm 'l1'; known: linf, l2"):
        ball("l1")
