"""Projected gradient descent against a classifier and the detector in front of it at once.

Axes: B images, R rows of them that still resist, C channels, H, W.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius, ball, broadcast, of_rows
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.gradients import usable
from trainables.attacks.shared.losses import margin
from trainables.attacks.shared.rounding import rounded
from trainables.attacks.shared.rows import keep, per_row, places

RejectMargin = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> (B,), positive where the detector rejects."""


@in_batches
def detector_aware_pgd(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    reject_margin: RejectMargin | None = None,
    steps: int = 40,
    step_size: Radius | None = None,
    random_start: bool = True,
    early_stop: bool = True,
    levels: Sequence[float] = (),
    by_rounding: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Climb the margin of the classifier where it holds, else descend the detector's score.

    Each step moves an image by the gradient of what still stands in its way: of the margin while
    it is classified right, of `reject_margin` once it is fooled but rejected, so that neither loss
    needs a weight against the other. Where that gradient is zero, or the last step along it did not
    lower the detector's score, the step climbs the classifier's margin on: many detectors accept
    what is surely misclassified. Without `reject_margin` there is only the classifier. The
    step starts at `step_size` (default eps) and decays linearly to zero. x (B, C, H, W) in [0, 1],
    y (B,), eps and step_size in pixel units. `early_stop` freezes an image that is fooled and
    accepted. Of an image that resists, or of every image without it, the best iterate is returned
    (the last one may have fallen back over either border): one that fools before one that does not,
    and of those the one furthest past the detector. Each iterate is tried rounded to multiples of
    1 / level for each of the `levels` too, as an image file holds it: the best of those is returned
    where no iterate gets past as it is, and `by_rounding` (B,) bool is set where it does. Raises
    ValueError where a random start has no generator. Source: Bryniarski et al., 2022 (selective
    PGD); Carlini and Wagner, 2017.
    """
    shape, size = ball(norm), eps if step_size is None else step_size
    radius, length = broadcast(eps, x), broadcast(size, x)
    current = x
    if random_start:
        if generator is None:
            raise ValueError("a random start needs a generator")
        current = (x + shape.start(x, radius, generator)).clamp(0, 1)
    best, best_value = current.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    as_file, as_file_value = best.clone(), best_value.clone()
    rows, useful = torch.arange(len(x), device=x.device), _Useful(best_value)
    for step in range(steps + 1):
        found = _Barrier.of(model, reject_margin, current, y[rows])
        _keep_better(best, best_value, rows, current, found.value)
        for level in levels:
            held = rounded(current, x[rows], level, norm=norm, eps=of_rows(eps, rows))
            value = _values(model, reject_margin, held, y[rows])
            _keep_better(as_file, as_file_value, rows, held, value)
        gradient = useful.choose(found, rows)
        if early_stop:
            left = places(best_value[rows] <= 0)
            rows, current, gradient = rows[left], current[left], gradient[left]
        if step == steps or len(rows) == 0:
            break
        limit = radius[rows] if radius.dim() else radius
        pace = (length[rows] if length.dim() else length) * (1 - step / steps)
        moved = current + pace * shape.direction(gradient)
        current = (x[rows] + shape.project(moved - x[rows], limit)).clamp(0, 1)
    gained = (best_value <= 0) & (as_file_value > best_value)
    if by_rounding is not None:
        by_rounding.copy_(gained & (as_file_value > 0))
    return torch.where(per_row(gained, best), as_file, best)


def _keep_better(
    best: Tensor, best_value: Tensor, rows: Tensor, images: Tensor, value: Tensor
) -> None:
    """Write images (R, C, H, W) and their values (R,) over those of the rows that are worse."""
    better = value > best_value[rows]
    keep(best, rows, images, better)
    keep(best_value, rows, value, better)


@dataclass(frozen=True, slots=True, eq=False)
class _Barrier:
    """How far images (R, C, H, W) are past what stands in their way, and the ways on."""

    value: Tensor
    """(R,); see `_ranked`."""
    fooled: Tensor
    """(R,) whether they are misclassified."""
    accepted: Tensor
    """(R,) how far they are past the detector."""
    towards_wrong: Tensor
    """(R, C, H, W) the gradient of the classifier's margin."""
    towards_accepted: Tensor
    """(R, C, H, W) the gradient of `accepted`."""

    @classmethod
    def of(
        cls, model: Scores, reject_margin: RejectMargin | None, images: Tensor, y: Tensor
    ) -> "_Barrier":
        """Look at images."""
        classified, towards_wrong = _climbed(lambda seen: margin(model(seen), y), images)
        accepted, towards_accepted = torch.ones_like(classified), torch.zeros_like(images)
        if reject_margin is not None:
            rejected = reject_margin
            accepted, towards_accepted = _climbed(lambda seen: -rejected(seen), images)
        value = _ranked(classified, accepted)
        return cls(value, classified > 0, accepted, towards_wrong, towards_accepted)


class _Useful:
    """Where the gradient of the detector's margin leads somewhere: judged by the step before."""

    def __init__(self, like: Tensor) -> None:
        self.before = like.clone()
        """(B,) how far past the detector each image was before its step along that gradient;
        -inf where the step was another."""

    def choose(self, found: _Barrier, rows: Tensor) -> Tensor:
        """Return the gradients (R, C, H, W) to climb."""
        there = found.towards_accepted.flatten(1).ne(0).any(1)
        descend = found.fooled & there & (found.accepted > self.before[rows])
        self.before[rows] = found.accepted.masked_fill(~descend, -torch.inf)
        return torch.where(
            per_row(descend, found.towards_wrong), found.towards_accepted, found.towards_wrong
        )


def _climbed(height: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the height (R,) of images and its gradient, zero where none reaches them."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        found = height(images).to(images.dtype)
        gradient = torch.zeros_like(images)
        if found.requires_grad:
            (gradient,) = torch.autograd.grad(found.sum(), images)
    return found.detach(), usable(gradient)


def _values(model: Scores, reject_margin: RejectMargin | None, images: Tensor, y: Tensor) -> Tensor:
    """Return how far images (R, C, H, W) are past what stands in their way."""
    with torch.no_grad():
        classified = margin(model(images), y)
        accepted = torch.ones_like(classified)
        if reject_margin is not None:
            accepted = -reject_margin(images).to(images.dtype)
    return _ranked(classified, accepted)


def _ranked(classified: Tensor, accepted: Tensor) -> Tensor:
    """Return one value (R,) for both borders.

    Positive: fooled and accepted, in (0, 1); fooled but rejected: in (-1, 0]; classified right: in
    (-3, -1). So an image that fools ranks before any that does not.
    """
    return torch.where(classified > 0, F.softsign(accepted), F.softsign(classified) - 2)
