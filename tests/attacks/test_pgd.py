from typing import Any

import foolbox
import pytest
import torch
from foolbox.models.pytorch import PyTorchModel

from tests.conftest import TrainedNet
from tests.making import EPS, LinearSoftmax, accuracy
from trainables.attacks.pgd import pgd
from trainables.errors import InputError

both_nets = pytest.mark.parametrize("net", ["undefended", "hardened"])


every_net = pytest.mark.parametrize("net", ["undefended", "hardened", "mnist_net", "cifar10_net"])


@pytest.mark.parametrize(("eps", "step_size"), [(EPS, 0.02), (0.05, 0.0125)])
@every_net
def test_linf_pgd_equals_foolbox_pixel_for_pixel(
    trained: TrainedNet, eps: float, step_size: float
) -> None:
    oracle = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=20, random_start=False)
    wrapped = PyTorchModel(trained.model.eval(), bounds=(0, 1), device="cpu")
    _, expected, _ = oracle(wrapped, trained.x, trained.y, epsilons=eps)
    attacked = pgd(
        trained.model,
        trained.x,
        trained.y,
        eps=eps,
        steps=20,
        step_size=step_size,
        random_start=False,
        early_stop=False,
    )
    torch.testing.assert_close(attacked, expected, atol=1e-6, rtol=0)


@every_net
def test_l2_pgd_has_the_norms_and_the_accuracy_of_foolbox(trained: TrainedNet) -> None:
    eps = 0.8
    oracle = foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=20, random_start=False)
    wrapped = PyTorchModel(trained.model.eval(), bounds=(0, 1), device="cpu")
    _, expected, _ = oracle(wrapped, trained.x, trained.y, epsilons=eps)
    attacked = pgd(
        trained.model,
        trained.x,
        trained.y,
        eps=eps,
        norm="l2",
        steps=20,
        step_size=0.1,
        random_start=False,
        early_stop=False,
    )
    norms = (attacked - trained.x).flatten(1).norm(dim=1)
    assert float(norms.max()) <= eps + 1e-6
    theirs = (expected - trained.x).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, theirs, atol=5e-3, rtol=0)
    ours = accuracy(trained.model, attacked, trained.y)
    # Two codes round otherwise, which may carry an image over a border, be they a hundred or more.
    one_image = 1.5 / len(trained.y)
    assert ours == pytest.approx(accuracy(trained.model, expected, trained.y), abs=one_image)


@both_nets
def test_pgd_breaks_more_than_one_step_and_more_steps_and_restarts_never_less(
    trained: TrainedNet,
) -> None:
    model, x, y = trained.model, trained.x[:120], trained.y[:120]

    def left(**settings: int) -> float:
        generator = torch.Generator().manual_seed(0)
        attacked = pgd(model, x, y, eps=EPS, generator=generator, **settings)  # type: ignore[arg-type]
        return accuracy(model, attacked, y)

    assert left(steps=20) < left(steps=1)
    assert left(steps=20, restarts=3) <= left(steps=20)


def test_the_default_step_is_two_and_a_half_radii_over_the_steps(undefended: TrainedNet) -> None:
    x, y = undefended.x[:16], undefended.y[:16]
    default = pgd(undefended.model, x, y, eps=0.1, steps=10, random_start=False)
    given = pgd(undefended.model, x, y, eps=0.1, steps=10, step_size=0.025, random_start=False)
    assert torch.equal(default, given)


def test_pgd_reaches_the_optimum_of_a_linear_model_in_an_l2_ball() -> None:
    model, eps = LinearSoftmax(16, 2), 0.2
    x, y = torch.full((10, 1, 4, 4), 0.5), torch.arange(10) % 2
    towards = (model.weight[1 - y] - model.weight[y]).view_as(x)
    best = x + eps * towards / towards.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    attacked = pgd(model, x, y, eps=eps, norm="l2", steps=5, random_start=False, early_stop=False)
    torch.testing.assert_close(attacked, best, atol=1e-6, rtol=0)


def test_randomness_without_a_generator_is_refused() -> None:
    model, x, y = LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0])
    refused: list[dict[str, Any]] = [{"random_start": True}, {"random_start": False, "restarts": 2}]
    for settings in refused:
        with pytest.raises(ValueError, match="generator"):
            pgd(model, x, y, eps=0.1, **settings)


def test_an_unknown_norm_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="linf, l2"):
        pgd(LinearSoftmax(4, 2), torch.rand(1, 1, 2, 2), torch.tensor([0]), eps=0.1, norm="l7",
            random_start=False)  # fmt: skip
