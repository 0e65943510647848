import pytest
import torch
from foolbox.attacks.basic_iterative_method import LinfBasicIterativeAttack
from foolbox.models.pytorch import PyTorchModel

from tests.conftest import TrainedNet
from tests.making import EPS
from trainables.attacks.bim import bim
from trainables.attacks.pgd import pgd


@pytest.mark.parametrize("net", ["undefended", "hardened"])
def test_bim_equals_foolbox_pixel_for_pixel(net: str, request: pytest.FixtureRequest) -> None:
    trained: TrainedNet = request.getfixturevalue(net)
    oracle = LinfBasicIterativeAttack(abs_stepsize=0.03, steps=10)
    wrapped = PyTorchModel(trained.model.eval(), bounds=(0, 1), device="cpu")
    _, expected, _ = oracle(wrapped, trained.x, trained.y, epsilons=EPS)
    attacked = bim(trained.model, trained.x, trained.y, eps=EPS, step_size=0.03, early_stop=False)
    torch.testing.assert_close(attacked, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("early_stop", [False, True])
def test_bim_is_pgd_without_a_random_start(early_stop: bool, hardened: TrainedNet) -> None:
    model, x, y = hardened.model, hardened.x[:60], hardened.y[:60]
    attacked = bim(model, x, y, eps=EPS, early_stop=early_stop)
    same = pgd(model, x, y, eps=EPS, steps=10, random_start=False, early_stop=early_stop)
    assert torch.equal(attacked, same)


def test_the_default_step_is_two_and_a_half_radii_over_the_steps(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:16], undefended.y[:16]
    given = bim(model, x, y, eps=0.1, steps=5, step_size=0.05)
    assert torch.equal(bim(model, x, y, eps=0.1, steps=5), given)
