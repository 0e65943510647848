import pytest
import torch
from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack

from tests.attacks.shared.comparing import by_foolbox, judge
from tests.conftest import TrainedNet
from tests.making import LinearSoftmax
from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.shared.losses import margin

QUICK = {"steps": 60, "search_steps": 5, "step_size": 0.1, "initial_const": 1.0}


def quick(trained: TrainedNet, count: int, **changes: float) -> torch.Tensor:
    """Attack the first images with few, large steps."""
    settings = {**QUICK, **changes}
    return carlini_wagner(trained.model, trained.x[:count], trained.y[:count], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("net", ["undefended", "hardened", "mnist_net", "cifar10_net"])
def test_it_succeeds_always_and_moves_images_no_further_than_foolbox(trained: TrainedNet) -> None:
    count, steps, size = 6, 100, 0.05
    oracle = L2CarliniWagnerAttack(binary_search_steps=9, steps=steps, stepsize=size)
    theirs = judge(trained, by_foolbox(oracle, trained, count), count)
    x, y = trained.x[:count], trained.y[:count]
    attacked = carlini_wagner(trained.model, x, y, steps=steps, step_size=size)
    ours = judge(trained, attacked, count)
    assert ours.success == 1.0
    assert ours.mean_l2 <= 1.02 * theirs.mean_l2


def test_black_and_white_pixels_move(undefended: TrainedNet) -> None:
    x = undefended.x[:20].round()  # every pixel at a bound, where arctanh has no finite value
    y = undefended.model(x).argmax(1)
    attacked = carlini_wagner(undefended.model, x, y, **QUICK)  # type: ignore[arg-type]
    assert bool((undefended.model(attacked).argmax(1) != y).all())
    moved = (attacked - x).abs().flatten(1).amax(1)
    assert float(moved.min()) > 0.01


def test_the_smallest_change_of_a_linear_model_is_found() -> None:
    model = LinearSoftmax(16, 2)
    x = torch.full((6, 1, 4, 4), 0.5) + torch.linspace(-0.05, 0.05, 6).view(6, 1, 1, 1)
    scores = model(x)
    y = scores.argmax(1)
    normal = (model.weight[0] - model.weight[1]).norm()
    exact = (scores[:, 0] - scores[:, 1]).abs() / normal
    attacked = carlini_wagner(model, x, y, steps=200, search_steps=12)
    lengths = (attacked - x).flatten(1).norm(dim=1)
    assert bool((model(attacked).argmax(1) != y).all())
    assert bool((lengths >= exact - 1e-6).all())
    torch.testing.assert_close(lengths, exact, rtol=0.02, atol=1e-4)


def test_confidence_is_a_margin_that_costs_distance(undefended: TrainedNet) -> None:
    x, y = undefended.x[:20], undefended.y[:20]
    right = undefended.model(x).argmax(1) == y
    plain, sure = quick(undefended, 20), quick(undefended, 20, confidence=3.0)
    margins = margin(undefended.model(sure), y)
    moved = (sure != x).flatten(1).any(1)
    assert float(moved.double().mean()) > 0.8
    assert bool((margins[moved & right] > 3.0).all())
    both = moved & right
    lengths = [(images - x).flatten(1).norm(dim=1)[both].mean() for images in (plain, sure)]
    assert float(lengths[0]) < float(lengths[1])


def test_ending_a_descent_early_costs_next_to_nothing(undefended: TrainedNet) -> None:
    settings = {"steps": 200, "step_size": 0.05, "search_steps": 6, "initial_const": 0.1}
    stopped = judge(undefended, quick(undefended, 16, **settings, early_stop=True), 16)
    full = judge(undefended, quick(undefended, 16, **settings, early_stop=False), 16)
    assert stopped.success == full.success == 1.0
    assert stopped.mean_l2 <= 1.02 * full.mean_l2


def test_each_image_has_a_constant_of_its_own() -> None:
    # One image lies by the boundary and one far from it: a shared constant would suit neither.
    model = LinearSoftmax(4, 2)
    normal = (model.weight[1] - model.weight[0]).view(1, 1, 2, 2)
    normal, near = normal.detach(), torch.full((1, 1, 2, 2), 0.5)
    near = near - normal * (model(near).diff() + 0.01).item() / normal.square().sum()
    x = torch.cat([near, (near - 0.2 * normal / normal.norm()).clamp(0, 1)])
    y = model(x).argmax(1)
    together = carlini_wagner(model, x, y, steps=200)
    alone = torch.cat(
        [carlini_wagner(model, x[i : i + 1], y[i : i + 1], steps=200) for i in (0, 1)]
    )
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    lengths = (together - x).flatten(1).norm(dim=1)
    assert float(lengths[1]) > 5 * float(lengths[0]) > 0


def test_steps_must_be_enough() -> None:
    model, x, y = LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="at least one step; got 0, 9"):
        carlini_wagner(model, x, y, steps=0)
