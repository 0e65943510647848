import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax, accuracy
from trainables.attacks.pgd import pgd
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd


class Scaled(nn.Module):
    """A model with its scores divided by T."""

    def __init__(self, model: nn.Module, T: float) -> None:
        super().__init__()
        self.model, self.T = model, T

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        scores: Tensor = self.model(x) / self.T
        return scores


both_nets = pytest.mark.parametrize("net", ["undefended", "hardened"])


@both_nets
def test_it_breaks_what_cross_entropy_breaks_or_more(
    net: str, request: pytest.FixtureRequest
) -> None:
    trained: TrainedNet = request.getfixturevalue(net)
    generator = torch.Generator().manual_seed(0)
    by_loss = pgd(trained.model, trained.x, trained.y, eps=EPS, steps=20, generator=generator)
    by_margin = targeted_margin_pgd(trained.model, trained.x, trained.y, eps=EPS, steps=20)
    left = accuracy(trained.model, by_loss, trained.y)
    assert accuracy(trained.model, by_margin, trained.y) <= left + 0.01


# Powers of two scale without rounding, so that not one image may come out otherwise.
@pytest.mark.parametrize("T", [2.0**-7, 2.0**7])
@both_nets
def test_a_temperature_in_front_of_the_scores_hides_nothing(
    net: str, T: float, request: pytest.FixtureRequest
) -> None:
    trained: TrainedNet = request.getfixturevalue(net)
    model, x, y = trained.model, trained.x[:90], trained.y[:90]
    plain = targeted_margin_pgd(model, x, y, eps=EPS)
    tempered = targeted_margin_pgd(Scaled(model, T), x, y, eps=EPS)
    wrong = model(plain).argmax(1) != y
    assert torch.equal(wrong, model(tempered).argmax(1) != y)


def test_a_temperature_does_hide_the_gradient_of_the_cross_entropy(undefended: TrainedNet) -> None:
    # The reason that this attack exists: were it otherwise, the test above would prove nothing.
    model, x, y = undefended.model, undefended.x, undefended.y
    sharp = pgd(Scaled(model, 0.01), x, y, eps=EPS, random_start=False)
    plain = pgd(model, x, y, eps=EPS, random_start=False)
    assert accuracy(model, sharp, y) > accuracy(model, plain, y) + 0.1


def test_more_targets_never_break_less(hardened: TrainedNet) -> None:
    model, x, y = hardened.model, hardened.x[:60], hardened.y[:60]
    left = [
        accuracy(model, targeted_margin_pgd(model, x, y, eps=EPS, steps=10, targets=targets), y)
        for targets in (1, 3, 9, 50)
    ]
    assert left == sorted(left, reverse=True)
    assert left[2] == left[3]  # there are only nine wrong classes


def test_the_best_of_several_targets_is_found_on_a_linear_model() -> None:
    # By closed form: class k is reached when its margin plus eps * ||w_k - w_y||_1 is positive.
    model, eps, y = LinearSoftmax(9, 5, seed=3), 0.05, torch.full((60,), 1)
    x = torch.rand(60, 1, 3, 3, generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
    difference = model.weight - model.weight[1]
    reachable = model(x) - model(x)[:, 1:2] + eps * difference.abs().sum(1)
    expected = (reachable[:, [0, 2, 3, 4]] > 0).any(1)
    attacked = targeted_margin_pgd(model, x, y, eps=eps, targets=4)
    broken = model(attacked).argmax(1) != 1
    assert 0.1 < float(expected.double().mean()) < 0.9
    assert torch.equal(broken, expected)


def test_with_all_steps_the_widest_margin_is_returned() -> None:
    model, eps = LinearSoftmax(9, 4, seed=1), 0.05
    x = torch.rand(30, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    y = torch.arange(30) % 4
    attacked = targeted_margin_pgd(model, x, y, eps=eps, targets=3, early_stop=False)
    truth = F.one_hot(y, 4).bool()
    margin = (model(attacked).masked_fill(truth, -torch.inf).amax(1)) - model(attacked)[truth]
    shift = eps * (model.weight[None] - model.weight[y][:, None]).abs().sum(2)
    best = (model(x) - model(x)[truth][:, None] + shift).masked_fill(truth, -torch.inf).amax(1)
    torch.testing.assert_close(margin, best, atol=1e-5, rtol=0)
