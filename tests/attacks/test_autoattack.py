import logging
import sys

import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from tests.attacks.shared.asked import NoGradient
from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax, accuracy
from trainables.attacks.autoattack import _parts, autoattack
from trainables.attacks.pgd import pgd
from trainables.attacks.queries.random_noise import random_noise
from trainables.attacks.shared.batching import BATCH
from trainables.errors import InputError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _seed() -> int:
    """Return the seed that the attack takes from a fresh generator."""
    return int(torch.randint(2**31, (), generator=_generator()))


def test_it_is_the_authors_standard_version() -> None:
    model, eps = LinearSoftmax(25, 10, seed=1).requires_grad_(False), 0.04
    x = torch.rand(24, 1, 5, 5, generator=_generator(1)) * 0.8 + 0.1
    y = model(x).argmax(1)
    attacked = autoattack(model, x, y, eps=eps, generator=_generator())
    with torch.random.fork_rng(devices=[]):
        radius = float(torch.tensor(eps))
        runner = AutoAttack(model, eps=radius, norm="Linf", seed=_seed(), version="standard")
        expected, _ = runner.run_standard_evaluation(x, y, batch_size=BATCH)
    torch.testing.assert_close(attacked, expected, atol=1e-6, rtol=0)
    stays = model(attacked).argmax(1) == y
    assert 0 < int(stays.sum()) < len(x)
    assert torch.equal(attacked[stays], x[stays])


def test_it_breaks_what_pgd_breaks(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:20], undefended.y[:20]
    attacked = autoattack(model, x, y, eps=EPS, generator=_generator())
    found = pgd(model, x, y, eps=EPS, generator=_generator())
    assert accuracy(model, attacked, y) <= accuracy(model, found, y) < 0.5


def test_images_that_are_wrong_already_stay(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:12], undefended.y[:12].clone()
    y[::2] = (y[::2] + 1) % 10
    attacked = autoattack(model, x, y, eps=0.5, generator=_generator())
    wrong = model(x).argmax(1) != y
    assert int(wrong.sum()) >= 6
    assert torch.equal(attacked[wrong], x[wrong])
    assert accuracy(model, attacked, y) == 0


def test_it_is_quiet_and_leaves_globals_as_found(
    undefended: TrainedNet, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(7)
    state, trace = torch.get_rng_state(), sys.gettrace()
    disabled = logging.getLogger("auto-attack").disabled
    autoattack(nn.Sequential(undefended.model, nn.Softmax(1)), undefended.x[:8], undefended.y[:8],
               eps=0.5, generator=_generator())  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state)
    assert sys.gettrace() is trace
    assert logging.getLogger("auto-attack").disabled == disabled
    out, err = capfd.readouterr()
    assert out == "" and err == "" and caplog.text == ""


def test_parameters_get_no_gradient_even_from_fab() -> None:
    # So small a ball that FAB is reached; it is the part that calls backward.
    model = LinearSoftmax(16, 3)
    x = torch.rand(3, 1, 4, 4, generator=_generator())
    y = model(x).argmax(1)
    assert torch.equal(autoattack(model, x, y, eps=1e-4, generator=_generator()), x)
    assert model.weight.requires_grad and model.weight.grad is None and model.bias.grad is None


def test_scores_without_gradient_are_left_to_the_square_attack(undefended: TrainedNet) -> None:
    # FAB divides by the gradient and would count NaN as a success.
    model, x, y = NoGradient(undefended.model), undefended.x[:8], undefended.y[:8]
    attacked = autoattack(model, x, y, eps=0.25, generator=_generator())
    assert bool(attacked.isfinite().all())
    noisy = random_noise(model, x, y, eps=0.25, generator=_generator())
    assert accuracy(model, attacked, y) < accuracy(model, noisy, y)


def test_the_parts_are_those_that_the_number_of_classes_defines() -> None:
    assert _parts(10, False) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert _parts(4, False) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert _parts(3, False) == ("apgd-ce", "apgd-dlr", "fab-t", "square")
    assert _parts(2, False) == ("apgd-ce", "fab-t", "square")
    assert _parts(10, True) == ("apgd-ce", "apgd-dlr")
    assert _parts(2, True) == ("apgd-ce",)


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_it_reaches_the_optimum_of_a_linear_model_of_few_classes(num_classes: int) -> None:
    model, eps = LinearSoftmax(9, num_classes, seed=3), 0.05
    x = torch.rand(16, 1, 3, 3, generator=_generator(2)) * 0.8 + 0.1
    y = model(x).argmax(1)
    shift = eps * (model.weight[None] - model.weight[y][:, None]).abs().sum(2)
    scores = model(x)
    margins = scores - scores.gather(1, y[:, None]) + shift
    reachable = margins.scatter(1, y[:, None], -torch.inf).amax(1) > 0
    attacked = autoattack(model, x, y, eps=eps, generator=_generator())
    assert torch.equal(model(attacked).argmax(1) != y, reachable)


class Noisy(nn.Module):
    """Scores of images with noise drawn anew at each call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked, self.noise = model, 0, _generator(5)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, K)."""
        self.asked += 1
        scores: Tensor = self.model(x + 0.05 * torch.randn(x.shape, generator=self.noise))
        return scores


def test_a_stochastic_model_is_attacked_over_twenty_draws(undefended: TrainedNet) -> None:
    x, y, model = undefended.x[:8], undefended.y[:8], Noisy(undefended.model)
    attacked = autoattack(model, x, y, eps=0.5, stochastic=True, generator=_generator())
    assert accuracy(undefended.model, attacked, y) < 0.2
    assert model.asked > 20 * 100  # draws times steps of one part


def test_it_needs_a_generator_and_a_known_norm(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:1], undefended.y[:1]
    with pytest.raises(ValueError, match="generator"):
        autoattack(model, x, y, eps=0.1)
    with pytest.raises(InputError, match="linf, l2"):
        autoattack(model, x, y, eps=0.1, norm="l1", generator=_generator())
