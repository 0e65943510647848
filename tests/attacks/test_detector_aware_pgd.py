import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy
from trainables.attacks.detector_aware_pgd import detector_aware_pgd
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd


def _centre(images: Tensor) -> Tensor:
    """Reject where the mean of the image is above that of a mid-grey digit."""
    return images.flatten(1).mean(1) - 0.3


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_without_a_detector_it_is_a_margin_attack(hardened: TrainedNet) -> None:
    model, x, y = hardened.model, hardened.x[:120], hardened.y[:120]
    aware = detector_aware_pgd(model, x, y, eps=EPS, generator=_generator())
    margin = targeted_margin_pgd(model, x, y, eps=EPS, targets=1)
    assert accuracy(model, aware, y) <= accuracy(model, margin, y) + 0.03


@pytest.mark.parametrize("early_stop", [True, False])
def test_it_gets_past_a_detector_that_stops_a_blind_attack(
    early_stop: bool, undefended: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x, undefended.y
    accepted = _centre(x) <= 0
    x, y = x[accepted], y[accepted]
    aware = detector_aware_pgd(
        model,
        x,
        y,
        eps=EPS,
        reject_margin=_centre,
        early_stop=early_stop,
        generator=_generator(),
    )
    blind = targeted_margin_pgd(model, x, y, eps=EPS)
    shares = [
        float(((model(images).argmax(1) != y) & (_centre(images) <= 0)).double().mean())
        for images in (aware, blind)
    ]
    assert shares[0] > shares[1] + 0.1


def test_an_image_that_fools_ranks_before_one_that_does_not(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:60], undefended.y[:60]
    closed = detector_aware_pgd(
        model, x, y, eps=EPS, reject_margin=lambda images: images.new_ones(len(images)) * 3.0,
        generator=_generator(),
    )  # fmt: skip
    open_ = detector_aware_pgd(model, x, y, eps=EPS, generator=_generator())
    assert accuracy(model, closed, y) <= accuracy(model, open_, y) + 0.05


def test_a_random_start_needs_a_generator(undefended: TrainedNet) -> None:
    with pytest.raises(ValueError, match="generator"):
        detector_aware_pgd(undefended.model, undefended.x[:2], undefended.y[:2], eps=EPS)
