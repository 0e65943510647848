import pytest
import torch
from torch import Tensor

from tests.attacks.shared.comparing import judge
from tests.conftest import TrainedNet
from tests.making import LinearSoftmax
from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.lbfgs import lbfgs
from trainables.attacks.shared.quasi_newton import minimise_in_box


@pytest.mark.parametrize("net", ["undefended", "hardened", "mnist_net", "cifar10_net"])
def test_it_comes_as_near_as_carlini_and_wagner(trained: TrainedNet) -> None:
    count = 8
    x, y = trained.x[:count], trained.y[:count]
    reference = carlini_wagner(trained.model, x, y, steps=100, step_size=0.05)
    wanted = judge(trained, reference, count)
    found = judge(trained, lbfgs(trained.model, x, y), count)
    assert found.success == wanted.success == 1.0
    assert found.mean_l2 <= 1.1 * wanted.mean_l2


def test_the_smallest_change_of_a_linear_model_is_found() -> None:
    model = LinearSoftmax(16, 4)
    x = torch.full((6, 1, 4, 4), 0.5) + torch.linspace(-0.05, 0.05, 6).view(6, 1, 1, 1)
    scores = model(x)
    y = scores.argmax(1)
    gaps = (scores - scores.gather(1, y[:, None])).abs()
    distances = gaps / (model.weight[None] - model.weight[y][:, None]).norm(dim=2)
    nearest = distances.nan_to_num(nan=torch.inf).scatter(1, y[:, None], torch.inf).amin(1)
    attacked = lbfgs(model, x, y, search_steps=14)
    lengths = (attacked - x).flatten(1).norm(dim=1)
    assert bool((model(attacked).argmax(1) != y).all())
    assert bool((lengths >= nearest - 1e-6).all())
    torch.testing.assert_close(lengths, nearest, rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("initial_const", [1e-2, 1e4])
def test_the_first_constant_matters_little(initial_const: float, undefended: TrainedNet) -> None:
    x, y = undefended.x[:20], undefended.y[:20]
    usual = judge(undefended, lbfgs(undefended.model, x, y), 20)
    attacked = lbfgs(undefended.model, x, y, initial_const=initial_const, search_steps=12)
    other = judge(undefended, attacked, 20)
    assert other.success == usual.success == 1.0
    assert other.mean_l2 == pytest.approx(usual.mean_l2, rel=0.02)


def test_a_quadratic_in_a_box_is_minimised_exactly() -> None:
    # Diagonal, so that the minimum in the box is the clipped minimum; rows differ in all else.
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-1, 1, 12).expand(5, 12) * torch.logspace(-2, 2, 5)[:, None]
    centre = 3 * torch.rand(5, 12, generator=generator) - 1

    def objective(points: Tensor) -> tuple[Tensor, Tensor]:
        delta = points - centre
        return (scales * delta.square()).sum(1), 2 * scales * delta

    start = torch.rand(5, 12, generator=generator)
    end = minimise_in_box(objective, start, evaluations=80)
    torch.testing.assert_close(end, centre.clamp(0, 1), atol=1e-4, rtol=0)


def test_a_row_of_the_minimiser_does_not_depend_on_the_others() -> None:
    def rosenbrock(points: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_(True)
        with torch.enable_grad():
            a, b = 2 * points.unbind(1)[0], 2 * points.unbind(1)[1]
            value = (1 - a).square() + 100 * (b - a.square()).square()
            (gradient,) = torch.autograd.grad(value.sum(), points)
        return value.detach(), gradient

    start = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.0, 1.0]], dtype=torch.float64)
    together = minimise_in_box(rosenbrock, start, evaluations=120)
    alone = torch.cat([minimise_in_box(rosenbrock, row[None], evaluations=120) for row in start])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=0)
    torch.testing.assert_close(together, torch.full_like(start, 0.5), atol=1e-3, rtol=0)


def test_a_value_that_is_not_finite_is_stepped_back_from() -> None:
    def objective(points: Tensor) -> tuple[Tensor, Tensor]:
        value = (points - 0.2).square().sum(1)
        outside = (points > 0.6).any(1)
        value = torch.where(outside, torch.nan, value)
        return value, torch.where(outside[:, None], torch.nan, 20 * (points - 0.2))

    end = minimise_in_box(objective, torch.full((1, 2), 0.5), evaluations=60)
    assert bool(end.isfinite().all())


def test_steps_must_be_enough() -> None:
    model, x, y = LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="at least one step; got 0, 8"):
        lbfgs(model, x, y, steps=0)
