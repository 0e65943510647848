import pytest
import torch
from foolbox.attacks.fast_gradient_method import LinfFastGradientAttack
from foolbox.models.pytorch import PyTorchModel
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax
from trainables.attacks.fgsm import fgsm


@pytest.mark.parametrize("eps", [0.02, EPS, 0.4])
@pytest.mark.parametrize("net", ["undefended", "hardened", "mnist_net", "cifar10_net"])
def test_fgsm_equals_foolbox_pixel_for_pixel(trained: TrainedNet, eps: float) -> None:
    oracle = LinfFastGradientAttack(random_start=False)
    wrapped = PyTorchModel(trained.model.eval(), bounds=(0, 1), device="cpu")
    _, expected, _ = oracle(wrapped, trained.x, trained.y, epsilons=eps)
    torch.testing.assert_close(
        fgsm(trained.model, trained.x, trained.y, eps=eps), expected, atol=1e-6, rtol=0
    )


def test_fgsm_finds_the_worst_corner_of_a_two_class_linear_model() -> None:
    # The loss falls with the margin, whose minimum over the box is at a corner by sign alone.
    model, eps = LinearSoftmax(9, 2), 0.1
    x = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    y = torch.arange(40) % 2
    towards = model.weight[1 - y] - model.weight[y]
    best = x + eps * towards.sign().view_as(x)
    attacked = fgsm(model, x, y, eps=eps)
    torch.testing.assert_close(attacked, best, atol=1e-6, rtol=0)
    margin = (towards * x.flatten(1)).sum(1) + (model.bias[1 - y] - model.bias[y])
    worst = F.softplus(margin + eps * towards.abs().sum(1))
    reached = F.cross_entropy(model(attacked), y, reduction="none")
    torch.testing.assert_close(reached, worst, atol=1e-5, rtol=1e-5)


def test_a_random_start_takes_a_step_of_1_25_eps_and_comes_back_into_the_ball() -> None:
    model, eps = LinearSoftmax(4, 2), 0.1
    x, y = torch.full((500, 1, 2, 2), 0.5), torch.zeros(500, dtype=torch.long)
    attacked = fgsm(
        model, x, y, eps=eps, random_start=True, generator=torch.Generator().manual_seed(0)
    )
    direction = (model.weight[1] - model.weight[0]).sign().view(1, 1, 2, 2)
    along = ((attacked - x) * direction / eps).detach()
    # start + 1.25, clipped to 1: a start below -0.25 stays short of the border.
    assert float(along.min()) >= 0.25 - 1e-5
    assert float(along.max()) <= 1 + 1e-5
    assert 0.5 < float((along > 1 - 1e-5).double().mean()) < 0.75


def test_a_random_start_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="generator"):
        fgsm(LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0]), eps=0.1,
             random_start=True)  # fmt: skip


def test_stopping_early_leaves_mistakes_alone(undefended: TrainedNet) -> None:
    x, wrong = undefended.x[:32], (undefended.model(undefended.x[:32]).argmax(1) + 1) % 10
    assert torch.equal(fgsm(undefended.model, x, wrong, eps=EPS, early_stop=True), x)
