import pytest
import torch
from foolbox.attacks.deepfool import L2DeepFoolAttack
from torch import nn

from tests.attacks.shared.comparing import by_foolbox, judge
from tests.conftest import TrainedNet
from tests.making import LinearSoftmax
from trainables.attacks.deepfool import deepfool


@pytest.mark.parametrize("net", ["undefended", "hardened", "mnist_net", "cifar10_net"])
def test_deepfool_succeeds_always_and_moves_images_no_further_than_foolbox(
    trained: TrainedNet,
) -> None:
    count = 40
    oracle = L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits")
    theirs = judge(trained, by_foolbox(oracle, trained, count), count)
    attacked = deepfool(trained.model, trained.x[:count], trained.y[:count])
    ours = judge(trained, attacked, count)
    assert ours.success == 1.0
    assert ours.mean_l2 <= 1.02 * theirs.mean_l2


def test_one_step_reaches_the_nearest_boundary_of_a_linear_model() -> None:
    model = LinearSoftmax(16, 5)
    x = torch.full((30, 1, 4, 4), 0.5) + 0.05 * torch.randn(
        30, 1, 4, 4, generator=torch.Generator().manual_seed(0)
    )
    scores = model(x)
    y = scores.argmax(1)
    gaps = (scores - scores.gather(1, y[:, None])).abs()
    distances = gaps / (model.weight[None] - model.weight[y][:, None]).norm(dim=2)
    nearest = distances.nan_to_num(nan=torch.inf).scatter(1, y[:, None], torch.inf).amin(1)
    attacked = deepfool(model, x, y, steps=1, overshoot=0.02)
    assert bool((model(attacked).argmax(1) != y).all())
    lengths = (attacked - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, 1.02 * (nearest + 1e-4), atol=1e-5, rtol=1e-4)


def test_the_overshoot_lengthens_the_whole_change() -> None:
    # Where it is taken on each step alone, clipping can leave an image on the boundary for good.
    model, x = LinearSoftmax(16, 2), torch.full((4, 1, 4, 4), 0.5)
    with torch.no_grad():  # near the boundary, so that no pixel is clipped
        model.bias[1] += 0.5 - model(x[:1]).diff().item()
    y = model(x).argmax(1)
    short, long = (
        (deepfool(model, x, y, steps=1, overshoot=overshoot) - x).flatten(1).norm(dim=1)
        for overshoot in (0.1, 0.5)
    )
    torch.testing.assert_close(long / short, torch.full((4,), 1.5 / 1.1))


def test_successes_have_a_margin(undefended: TrainedNet) -> None:
    attacked = deepfool(undefended.model, undefended.x, undefended.y)
    top = undefended.model(attacked).topk(2, dim=1).values
    assert float((top[:, 0] - top[:, 1]).median()) > 1e-3


def test_more_candidates_find_nearer_boundaries(undefended: TrainedNet) -> None:
    x, y = undefended.x[:60], undefended.y[:60]
    few, many = (
        float((deepfool(undefended.model, x, y, candidates=k) - x).flatten(1).norm(dim=1).mean())
        for k in (2, 10)
    )
    assert many < few


def test_an_image_that_no_step_fools_is_given_back_clean() -> None:
    model = LinearSoftmax(16, 2)
    with torch.no_grad():
        model.bias[0] = 1e4
    x, y = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    assert torch.equal(deepfool(model, x, y), x)


def test_steps_and_candidates_must_be_enough() -> None:
    model, x, y = nn.Flatten(), torch.rand(1, 1, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="steps >= 1, candidates >= 2; got 0, 10"):
        deepfool(model, x, y, steps=0)
    with pytest.raises(ValueError, match="got 50, 1"):
        deepfool(model, x, y, candidates=1)
