"""Box-constrained L-BFGS: the first attack, which found that small changes fool networks.

Axes: B batch, R rows of it that are attacked, C channels, H, W, K classes, D = C H W.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import l2_norms
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.gradients import usable
from trainables.attacks.shared.minimum_norm import fooled, linearised, still_right
from trainables.attacks.shared.quasi_newton import minimise_in_box
from trainables.attacks.shared.rows import per_row

_CANDIDATES = 9
"""Wrong classes with the highest clean scores, of which the nearest is the target."""


@in_batches
def lbfgs(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 30,
    search_steps: int = 8,
    initial_const: float = 10.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Minimise c ||r||^2 + cross-entropy(x + r, target) over the box of images by L-BFGS.

    x (B, C, H, W) in [0, 1], y (B,). The target is the wrong class whose linearised boundary is the
    nearest. Each image has its own c: tenfold up or down until it has both failed and succeeded,
    bisected (in log c) from then on, `search_steps` in all, each of `steps` evaluations of the
    model on all images at once. The norm is squared, so that the objective is smooth at the clean
    image. The smallest misclassified image that was met is returned; one that is misclassified
    already, or for which none was met, is returned clean. No randomness: `generator` is there for
    the common call. Source: Szegedy et al., 2014, section 4.1.
    """
    del generator
    if steps < 1 or search_steps < 1:
        raise ValueError(f"lbfgs needs at least one step; got {steps}, {search_steps}")
    with torch.no_grad():
        rows = still_right(model(x), y)
    result = x.clone()
    if len(rows) == 0:
        return result
    search = _Search(model, x[rows], y[rows])
    const = torch.full((len(rows),), initial_const, dtype=x.dtype, device=x.device)
    works, fails = torch.zeros_like(const), torch.full_like(const, torch.inf)
    for _ in range(search_steps):
        success = search.minimise(const, steps)
        works, fails = torch.where(success, const, works), torch.where(success, fails, const)
        const = torch.where(works == 0, fails / 10, (works * fails).sqrt())
        const = torch.where(fails.isinf(), works * 10, const)
    result[rows] = search.best
    return result


class _Search:
    """The smallest misclassified image of each row so far, and what leads to smaller ones."""

    def __init__(self, model: Scores, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y = model, x, y
        self.target = _nearest_class(model, x, y)
        self.best = x.clone()
        self.best_norm = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)

    def minimise(self, const: Tensor, steps: int) -> Tensor:
        """Minimise at each row's c (R,), and return which minimisers (R,) are misclassified."""

        def objective(points: Tensor) -> tuple[Tensor, Tensor]:
            images = points.view_as(self.x)
            loss, gradient = self._evaluate(images)
            delta = points - self.x.flatten(1)
            value = loss + const * delta.square().sum(1)
            return value, gradient.flatten(1) + 2 * const[:, None] * delta

        end = minimise_in_box(objective, self.x.flatten(1), evaluations=steps)
        with torch.no_grad():
            return fooled(self.model(end.view_as(self.x)), self.y)

    def _evaluate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (R,) and its gradient, and keep what is fooled with less than before."""
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            scores = self.model(images)
            loss = F.cross_entropy(scores, self.target, reduction="none")
            gradient = torch.zeros_like(images)
            if loss.requires_grad:
                (gradient,) = torch.autograd.grad(loss.sum(), images)
        norms = l2_norms(images.detach() - self.x)
        better = fooled(scores, self.y) & (norms < self.best_norm)
        self.best = torch.where(per_row(better, images), images.detach(), self.best)
        self.best_norm = torch.where(better, norms, self.best_norm)
        return loss.detach(), usable(gradient)


def _nearest_class(model: Scores, x: Tensor, y: Tensor) -> Tensor:
    """Return the wrong class (R,) whose linearised boundary lies nearest to each image."""
    images = x.detach().requires_grad_(True)
    with torch.enable_grad():
        scores = model(images)
        wrong = scores.detach().scatter(1, y[:, None], -torch.inf)
        classes = wrong.topk(min(_CANDIDATES, wrong.shape[1] - 1), dim=1).indices
        distances, _ = linearised(scores.gather(1, classes) - scores.gather(1, y[:, None]), images)
    return classes.gather(1, distances.argmin(1, keepdim=True)).squeeze(1)
