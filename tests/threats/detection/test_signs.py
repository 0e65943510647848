"""Detectors that no attack can follow are flagged; one whose margin leads somewhere is not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.threats.predictors import Rejecting, brightness
from trainables.deployed.predictor import Predictor
from trainables.records.value import Measured
from trainables.threats.detection.signs import (
    BLIND_BEATS,
    LEADS_NOWHERE,
    NO_GRADIENT,
    ROUNDING_BEATS,
    margin_gradients,
    not_aware_because,
    rejection_indicators,
)
from trainables.threats.evasion.attacking import Attacker
from trainables.threats.evasion.evasion import HEADLINE, Evasion
from trainables.threats.evasion.run import Run
from trainables.threats.evasion.target import target_of
from trainables.threats.threat import Findings

SIGNS = {BLIND_BEATS, ROUNDING_BEATS, NO_GRADIENT, LEADS_NOWHERE}


def off_grid(x: Tensor) -> Tensor:
    """Return how far pixels lie from the digits' grey levels, with a gradient to the nearest."""
    return (16 * x - (16 * x).detach().round()).abs().flatten(1).mean(1)


def disagreements(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a score that counts copies, shifted in brightness, which are answered otherwise."""

    def score(x: Tensor) -> Tensor:
        answer = model(x).argmax(1)
        shifts = [s / 100 for s in (-12, -8, -4, 4, 8, 12)]
        others = [model((x + shift).clamp(0, 1)).argmax(1) for shift in shifts]
        return torch.stack([other != answer for other in others]).double().mean(0)

    return score


def _measured(net: TrainedNet, score: Callable[[Tensor], Tensor], limit: float) -> Findings:
    threat = Evasion(extent=HEADLINE, points=80)
    return threat.measure(Rejecting(net.model, score, limit), net.ctx)


def _failed(found: Findings) -> set[str]:
    return {row["name"] for row in found.notes["masking"]["indicators"] if row["failed"]}


def _robust(found: Findings) -> float:
    value = found.metrics["robust_accuracy"]
    assert isinstance(value, Measured)
    return value.value


def test_a_detector_of_what_no_file_holds_is_broken_and_flagged(undefended: TrainedNet) -> None:
    found = _measured(undefended, off_grid, 0.001)
    assert ROUNDING_BEATS in _failed(found)
    assert found.notes["masking"]["strikes"] and not found.notes["adaptive"]
    assert "leads no attack past it" in found.notes["not_adaptive_because"][0]
    assert _robust(found) < 0.6  # 0.98 where nothing is rounded


def test_a_detector_that_counts_without_a_gradient_is_flagged(undefended: TrainedNet) -> None:
    found = _measured(undefended, disagreements(undefended.model), 0.1)
    assert NO_GRADIENT in _failed(found)
    assert found.notes["masking"]["strikes"] and not found.notes["adaptive"]


def test_a_detector_that_can_be_followed_raises_no_sign(undefended: TrainedNet) -> None:
    limit = float(brightness(undefended.x).quantile(0.7))
    found = _measured(undefended, brightness, limit)
    assert not _failed(found) & SIGNS and found.notes["adaptive"]
    assert {row["name"] for row in found.notes["masking"]["indicators"]} >= SIGNS


def test_without_a_detector_there_are_no_such_signs(undefended: TrainedNet) -> None:
    found = Evasion(extent=HEADLINE, points=20).measure(Predictor(undefended.model), undefended.ctx)
    assert not {row["name"] for row in found.notes["masking"]["indicators"]} & SIGNS


def _attacker(net: TrainedNet, score: Callable[[Tensor], Tensor], limit: float) -> Attacker:
    points = net.ctx.points().select(torch.arange(100))
    target = target_of(Rejecting(net.model, score, limit), points, net.ctx)
    return Attacker(target, points, net.ctx, {})


def _run(images: Tensor, broken: Tensor, by_rounding: Tensor | None = None) -> Run:
    no = torch.zeros_like(broken)
    rounding = no if by_rounding is None else by_rounding
    return Run(
        adversarial=images,
        withstood=~broken,
        fooled=torch.ones_like(broken),
        disagrees=no,
        nll=no.float(),
        by_rounding=rounding,
    )


@pytest.mark.parametrize(
    ("blind", "rounded", "failed"),
    [(1, 0, set()), (30, 0, {BLIND_BEATS}), (0, 30, {ROUNDING_BEATS}), (0, 1, set())],
)
def test_what_is_accepted_and_wrong_is_compared(
    blind: int, rounded: int, failed: set[str], undefended: TrainedNet
) -> None:
    attacker = _attacker(undefended, brightness, 2.0)
    images, index = attacker.points.images(), torch.arange(100)
    runs = {
        "fgsm": _run(images, (index < blind)),
        "detector_aware_pgd": _run(images, index >= 50, (index >= 50) & (index < 50 + rounded)),
    }
    robust = torch.zeros(100, dtype=torch.bool)
    found = rejection_indicators(attacker, runs, robust)
    assert {row.name for row in found if row.failed} == failed


@pytest.mark.parametrize(("sign", "zero", "useless"), [(1.0, 0, 0), (-1.0, 0, 60), (0.0, 60, 0)])
def test_a_gradient_is_judged_by_a_step_along_it(
    sign: float, zero: int, useless: int, undefended: TrainedNet
) -> None:
    def score(x: Tensor) -> Tensor:
        """Return the brightness, its gradient multiplied by `sign`."""
        value = brightness(x)
        return value.detach() + sign * (value - value.detach())

    attacker = _attacker(undefended, score, 0.0)
    images, index = attacker.points.images(), torch.arange(100)
    runs = {"pgd": _run((images + 0.1).clamp(0, 1), index < 0)}
    found = margin_gradients(attacker, runs, robust=index < 60)
    assert (int(found.zero.sum()), int(found.useless.sum())) == (zero, useless)


def test_what_kept_attacks_from_following_is_said_once() -> None:
    assert not_aware_because(set()) == []
    assert len(not_aware_because({ROUNDING_BEATS, LEADS_NOWHERE, BLIND_BEATS})) == 1
    assert "weaker than attacks that ignore it" in not_aware_because({BLIND_BEATS})[0]
