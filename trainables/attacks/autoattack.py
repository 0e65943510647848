"""AutoAttack, run by its authors' own code.

Axes: B batch, R rows of it that still resist, C channels, H, W, K classes.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius, ball, broadcast
from trainables.attacks.shared.batching import BATCH, in_batches
from trainables.attacks.shared.gradients import usable
from trainables.attacks.shared.rows import keep, per_row, places
from trainables.device import forked_rng

_NORMS = {"linf": "Linf", "l2": "L2"}
_MOST_TARGETS = 9
EOT_DRAWS = 20


@in_batches
def autoattack(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    stochastic: bool = False,
    eot_draws: int = EOT_DRAWS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run the standard AutoAttack on the images that are classified correctly.

    x (B, C, H, W) in [0, 1], y (B,), eps in pixel units; a call works radius by radius where they
    differ. The parts are apgd-ce, apgd-t, fab-t and square with their published settings, or for a
    stochastic model apgd-ce and apgd-dlr over `eot_draws` draws; each attacks the images that
    resisted those before, which come back unchanged if they resist all. With three classes apgd-dlr
    stands in for apgd-t, whose loss needs four; with two no dlr loss is defined and the part is
    left out; the targeted parts try min(9, K - 1) classes. Success is judged on images put back
    into ball and pixel range, so a part that fails in its arithmetic ends no search. Raises
    ValueError without a generator. Source: Croce and Hein, 2020.
    """
    if generator is None:
        raise ValueError("AutoAttack needs a generator")
    ball(norm)  # refuses an unknown norm
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    radii = broadcast(eps, x).flatten().expand(len(x))
    scores, adversarial = _InputScores(model), x.clone()
    with _as_found(x.device):
        clean = scores(x)
        draws = eot_draws if stochastic else None
        evaluation = _Evaluation(scores, norm, clean.shape[1], draws, seed)
        resists = clean.argmax(1) == y
        for radius in sorted(set(radii[resists & (radii > 0)].tolist())):
            rows = places(resists & (radii == radius))
            adversarial[rows] = evaluation.attacked(x[rows], y[rows], radius)
    return adversarial


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """A run of AutoAttack without its radius."""

    scores: Scores
    norm: str
    num_classes: int
    eot_draws: int | None
    """None: the model is deterministic."""
    seed: int

    def attacked(self, x: Tensor, y: Tensor, radius: float) -> Tensor:
        """Run each part on those of the correctly classified images (B, ..) that still resist."""
        result, rows = x.clone(), torch.arange(len(x), device=x.device)
        shape, limit = ball(self.norm), broadcast(radius, x)
        for part in _parts(self.num_classes, self.eot_draws is not None):
            if len(rows) == 0:
                break
            runner = self._runner(part, radius, x.device)
            found, _ = runner.run_standard_evaluation(x[rows], y[rows], batch_size=BATCH)
            moved = (x[rows] + shape.project(found - x[rows], limit)).clamp(0, 1)
            # FAB divides by the gradient: where there is none it answers NaN and calls it success.
            sound = moved.isfinite().flatten(1).all(1)
            moved = torch.where(per_row(sound, moved), moved, x[rows])
            fooled = sound & (self.scores(moved).argmax(1) != y[rows])
            keep(result, rows, moved, fooled)
            rows = rows[places(~fooled)]
        return result

    def _runner(self, part: str, radius: float, device: torch.device) -> Any:
        """Return the authors' attack with one part, set as in their standard or rand version."""
        from pyautoattack import AutoAttack

        runner = AutoAttack(
            self.scores,
            attacks=[part],
            device=device,
            eps=radius,
            norm=_NORMS[self.norm],
            seed=self.seed,
            version="custom",
        )
        targets = min(_MOST_TARGETS, self.num_classes - 1)
        runner.apgd.n_restarts = 1
        runner.apgd_targeted.n_target_classes = targets
        runner.fab.n_target_classes = targets
        if self.eot_draws is not None:
            runner.apgd.eot_iter = self.eot_draws
        return runner


def _parts(num_classes: int, stochastic: bool) -> tuple[str, ...]:
    """Return the parts of the attack that are defined for so many classes."""
    untargeted = ("apgd-dlr",) if num_classes > 2 else ()
    if stochastic:
        return ("apgd-ce", *untargeted)
    return ("apgd-ce", *(("apgd-t",) if num_classes > 3 else untargeted), "fab-t", "square")


class _InputScores:
    """Scores whose gradient reaches the images and nothing else.

    FAB calls `backward`, which would otherwise leave gradients on the model's parameters.
    """

    def __init__(self, model: Scores) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores (B, K) that the caller may write on."""
        if torch.is_grad_enabled() and x.requires_grad:
            scores: Tensor = _ThroughInput.apply(x, self.model)
            return scores
        with torch.no_grad():
            return self.model(x).clone()


class _ThroughInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Scores) -> Tensor:
        images = x.detach().requires_grad_(True)
        with torch.enable_grad():
            ctx.images, ctx.scores = images, model(images)
        scores: Tensor = ctx.scores.detach().clone()
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if not ctx.scores.requires_grad:
            return torch.zeros_like(ctx.images), None
        (gradient,) = torch.autograd.grad(ctx.scores, ctx.images, gradients[0])
        return usable(gradient), None


@contextmanager
def _as_found(device: torch.device) -> Iterator[None]:
    """Keep the authors' code quiet, and restore what it changes: global seeds, the trace."""
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    was_disabled = logger.disabled
    logger.disabled = True
    try:
        with forked_rng(device):
            yield
    finally:
        logger.disabled = was_disabled
        sys.settrace(trace)
