from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy
from trainables.attacks.detector_aware_pgd import _Barrier, _Useful, detector_aware_pgd
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


def _off_grid(images: Tensor) -> Tensor:
    """Reject what no file of 17 grey levels holds; the gradient leads to the nearest level."""
    return (16 * images - (16 * images).detach().round()).abs().flatten(1).mean(1) - 0.001


def test_iterates_are_tried_as_a_file_holds_them(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:90], undefended.y[:90]

    def attacked(**settings: Any) -> tuple[Tensor, float]:
        found = detector_aware_pgd(
            model, x, y, eps=EPS, reject_margin=_off_grid, generator=_generator(), **settings
        )
        passed = (model(found).argmax(1) != y) & (_off_grid(found) <= 0)
        return passed, float((found - x).abs().max())

    by_rounding = torch.zeros(len(x), dtype=torch.bool)
    passed, far = attacked(levels=(255.0, 16.0), by_rounding=by_rounding)
    as_made, _ = attacked()
    assert int(passed.sum()) > int(as_made.sum()) + 30 and far <= EPS + 1e-6
    assert torch.equal(passed & ~as_made, by_rounding)


def _without_gradient(images: Tensor) -> Tensor:
    return _centre(images).detach().double()  # whatever its precision


def test_where_the_margin_has_no_gradient_confidence_is_climbed_on(undefended: TrainedNet) -> None:
    model, x, y = undefended.model, undefended.x[:90], undefended.y[:90]
    seen: list[Tensor] = []

    def margin_of(images: Tensor) -> Tensor:
        scores: Tensor = model(images).detach()
        true = scores.gather(1, y[:, None]).squeeze(1)
        return scores.scatter(1, y[:, None], -torch.inf).amax(1) - true

    def rejecting(images: Tensor) -> Tensor:
        seen.append(margin_of(images))
        return _without_gradient(images) + 10  # rejects all

    detector_aware_pgd(
        model, x, y, eps=EPS, reject_margin=rejecting, early_stop=False, generator=_generator()
    )
    confidence = torch.stack(seen)
    fooled = confidence.amax(0) > 0
    first = confidence.gather(0, confidence.gt(0).int().argmax(0)[None]).squeeze(0)
    climbed = confidence[-5:].amax(0) > first
    assert int(fooled.sum()) > 60
    assert float(climbed[fooled].double().mean()) > 0.8


def test_after_a_step_that_did_not_lower_the_score_the_classifier_is_climbed() -> None:
    classifier, detector = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 2.0)
    useful, rows = _Useful(torch.full((2,), -torch.inf)), torch.arange(2)
    chosen = []
    for accepted in ([-1.0, -1.0], [-1.5, -0.5], [-1.4, -0.4]):
        past = torch.tensor(accepted)
        found = _Barrier(past, torch.tensor([True, True]), past, classifier, detector)
        chosen.append(useful.choose(found, rows)[:, 0, 0, 0].tolist())
    assert chosen == [[2.0, 2.0], [1.0, 2.0], [2.0, 2.0]]


def test_a_random_start_needs_a_generator(undefended: TrainedNet) -> None:
    with pytest.raises(ValueError, match="generator"):
        detector_aware_pgd(undefended.model, undefended.x[:2], undefended.y[:2], eps=EPS)
