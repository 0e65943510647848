import pytest
import torch

from tests.attacks.shared.asked import NeverAsked
from tests.conftest import TrainedNet
from tests.making import EPS, accuracy
from trainables.attacks.pgd import pgd
from trainables.attacks.queries.random_noise import random_noise
from trainables.attacks.transfer import transfer


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 0.8)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_it_is_all_steps_of_pgd_on_the_surrogate_and_asks_the_model_nothing(
    norm: str, eps: float, loss: str, undefended: TrainedNet
) -> None:
    surrogate, x, y = undefended.model, undefended.x[:30], undefended.y[:30]
    crafted = transfer(
        NeverAsked(), x, y, eps=eps, norm=norm, loss=loss, surrogate=surrogate,
        generator=_generator(),
    )  # fmt: skip
    expected = pgd(
        surrogate, x, y, eps=eps, norm=norm, loss=loss, early_stop=False, generator=_generator()
    )
    assert torch.equal(crafted, expected)


def test_it_breaks_more_than_noise_and_less_than_an_attack_that_sees_the_model(
    undefended: TrainedNet, hardened: TrainedNet
) -> None:
    model, x, y = hardened.model, hardened.x, hardened.y
    crafted = transfer(model, x, y, eps=EPS, surrogate=undefended.model, generator=_generator())
    seen = pgd(model, x, y, eps=EPS, generator=_generator())
    noisy = random_noise(model, x, y, eps=EPS, draws=1, generator=_generator())
    left = accuracy(model, crafted, y)
    assert accuracy(model, seen, y) < left < accuracy(model, noisy, y)


def test_the_last_iterate_transfers_better_than_the_first_success(
    undefended: TrainedNet, hardened: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x, undefended.y
    crafted = transfer(model, x, y, eps=EPS, surrogate=hardened.model, generator=_generator())
    first = pgd(hardened.model, x, y, eps=EPS, early_stop=True, generator=_generator())
    assert accuracy(model, crafted, y) < accuracy(model, first, y)
