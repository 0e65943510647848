"""Carlini and Wagner's L2 attack: the smallest change by gradient descent behind a tanh.

Axes: B batch, R rows of it that are still searched, C channels, H, W, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.gradients import usable
from trainables.attacks.shared.losses import margin
from trainables.attacks.shared.minimum_norm import fooled, still_right
from trainables.attacks.shared.rows import keep, places

_BELOW_ONE = 0.99
"""Factor on images in [-1, 1], so that black and white pixels have a finite arctanh and move.

The authors take 0.999999, from where Adam needs hundreds of steps before such a pixel changes at
all. The offset that a smaller factor makes is added back, so that the descent starts at x itself.
"""
_LARGEST_CONST = 1e10
_PROGRESS = 0.9999
"""Share of its loss that a row must fall to between two checks, to go on."""
_CHECKS, _BETWEEN = 20, 50
"""Checks of a row's progress in each search step, and the fewest steps between two.

Per image, where the authors stop a whole batch, at each tenth. In less than some fifty steps Adam
may swing back and forth across the boundary while it still makes progress: measured on CIFAR-10.
"""
_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.999, 1e-8


@in_batches
def carlini_wagner(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 1000,
    search_steps: int = 9,
    step_size: float = 0.01,
    confidence: float = 0.0,
    initial_const: float = 1e-3,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Minimise ||x' - x||^2 + c max(score(y) - best other score + confidence, 0) by Adam.

    x (B, C, H, W) in [0, 1], y (B,); x' = (tanh(w) + 1) / 2. Each image has its own c, which grows
    tenfold until it succeeds and is bisected from then on, `search_steps` in all. `early_stop` ends
    an image's descent where a twentieth of the steps, 50 at least, brought nothing. The smallest
    change that misclassifies by `confidence` is returned; an image that is misclassified already,
    or for which nothing is found, is returned clean. No randomness: `generator` is there for the
    common call. Source: Carlini and Wagner, 2017, section V and the authors' code.
    """
    del generator
    if steps < 1 or search_steps < 1:
        raise ValueError(f"carlini_wagner needs at least one step; got {steps}, {search_steps}")
    with torch.no_grad():
        rows = still_right(model(x), y)
    if len(rows) == 0:
        return x.clone()
    search = _Search.over(x[rows], y[rows], initial_const)
    for number in range(search_steps):
        # From ten steps on the authors spend the last on the smallest c known to succeed.
        if number == search_steps - 1 and search_steps >= 10:
            search.const = search.upper.clamp_max(_LARGEST_CONST)
        found = _descend(model, search, steps, step_size, confidence, early_stop)
        search.narrow(found)
    result = x.clone()
    result[rows] = search.best
    return result


@dataclass(slots=True, eq=False)
class _Search:
    """The search of B images for their c, and the smallest misclassified image of each so far."""

    x: Tensor
    y: Tensor
    const: Tensor
    lower: Tensor
    upper: Tensor
    best: Tensor
    best_square: Tensor
    """Squared length of its change."""

    @classmethod
    def over(cls, x: Tensor, y: Tensor, const: float) -> "_Search":
        """Start at c = const."""
        filled = torch.full((len(x),), const, dtype=torch.float64, device=x.device)
        return cls(
            x=x,
            y=y,
            const=filled,
            lower=torch.zeros_like(filled),
            upper=torch.full_like(filled, torch.inf),
            best=x.clone(),
            best_square=torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device),
        )

    def narrow(self, found: Tensor) -> None:
        """Move the bounds by which images (B,) were fooled, and choose the next c."""
        self.upper = torch.where(found, self.const, self.upper)
        self.lower = torch.where(found, self.lower, self.const)
        halved = (self.lower + self.upper) / 2
        self.const = torch.where(self.upper.isinf(), 10 * self.const, halved)


def _descend(
    model: Scores,
    search: _Search,
    steps: int,
    step_size: float,
    confidence: float,
    early_stop: bool,
) -> Tensor:
    """Run Adam from the clean images at each image's c, and return which images (B,) fool it."""
    rows = torch.arange(len(search.x), device=search.x.device)
    found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    x, y, best = search.x, search.y, search.best_square
    const = search.const.to(x.dtype)
    w = torch.atanh((2 * x - 1) * _BELOW_ONE)
    shift = x - (torch.tanh(w) + 1) / 2
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    previous = torch.full_like(const, torch.inf)
    interval = max(_BETWEEN, math.ceil(steps / _CHECKS))
    for step in range(steps):
        squashed = (torch.tanh(w) + 1) / 2
        images = (squashed + shift).clamp_(0, 1)
        scores, hinge, gradient = _evaluate(model, images, y, const, confidence)
        delta = images - x
        square = delta.square().flatten(1).sum(1)
        success = fooled(scores, y, confidence)
        keep(found, rows, success, success)
        better = success & (square < best)
        keep(search.best, rows, images, better)
        keep(search.best_square, rows, square, better)
        best = torch.where(better, square, best)
        if early_stop and step % interval == 0:
            loss = const * hinge + square
            going = places(loss <= _PROGRESS * previous)
            if len(going) == 0:
                break
            previous = loss
            if len(going) < len(rows):
                rows, y, const, best, previous = (
                    values[going] for values in (rows, y, const, best, previous)
                )
                w, x, shift, first, second, squashed, delta, gradient = (
                    values[going]
                    for values in (w, x, shift, first, second, squashed, delta, gradient)
                )
        # Through the tanh by hand: d squashed / d w = (1 - tanh^2) / 2 = 2 squashed (1 - squashed).
        gradient = gradient.add(delta, alpha=2).mul_(squashed).mul_(1 - squashed).mul_(2)
        first.lerp_(gradient, 1 - _BETA1)
        second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        spread = (second / (1 - _BETA2 ** (step + 1))).sqrt_().add_(_ADAM_EPS)
        w.addcdiv_(first, spread, value=-step_size / (1 - _BETA1 ** (step + 1)))
    return found


def _evaluate(
    model: Scores, images: Tensor, y: Tensor, const: Tensor, confidence: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (R, K), hinge (R,) and the gradient of c times the hinge in the images."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        scores = model(images)
        hinge = (confidence - margin(scores, y)).clamp_min(0)
        if not hinge.requires_grad:
            return scores.detach(), hinge.detach(), torch.zeros_like(images)
        (gradient,) = torch.autograd.grad((const * hinge).sum(), images)
    return scores.detach(), hinge.detach(), usable(gradient)
