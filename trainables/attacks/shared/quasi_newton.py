"""Projected L-BFGS on many images at once, each with its own steps, history and line search.

Axes: R rows (images), M pairs of history, D pixels of an image, all channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (R, D) in [0, 1] -> values (R,) and gradients (R, D)."""
_MEMORY = 8
"""Pairs of steps and gradient changes that are remembered."""
_ARMIJO = 1e-4
"""Share of the decrease that the slope promises, at which a step is taken."""
_FLAT = 1e-10


def minimise_in_box(objective: Objective, start: Tensor, *, evaluations: int) -> Tensor:
    """Lower the objective of each row from start (R, D) within [0, 1], and return the last points.

    Every evaluation serves all rows: a row whose step lowers its value enough takes it and turns
    to a new direction, another halves its step. Variables that a bound holds are left out of the
    direction. Source: Nocedal and Wright, 2006, algorithm 7.4 (two loops) and section 16.7
    (projection).
    """
    point, history = start.clone(), _History(start)
    value, gradient = objective(point)
    direction = history.direction(point, gradient)
    length = torch.ones_like(value)
    for _ in range(evaluations - 1):
        trial = (point + length[:, None] * direction).clamp(0, 1)
        trial_value, trial_gradient = objective(trial)
        slope = (gradient * (trial - point)).sum(1)
        taken = trial_value <= value + _ARMIJO * slope
        history.add(trial - point, trial_gradient - gradient, taken)
        point = torch.where(taken[:, None], trial, point)
        value = torch.where(taken, trial_value, value)
        gradient = torch.where(taken[:, None], trial_gradient, gradient)
        turned = history.direction(point, gradient)
        direction = torch.where(taken[:, None], turned, direction)
        length = (length / 2).masked_fill(taken, 1.0)
    return point


class _History:
    """The last steps and changes of gradient of every row; what is not yet known is zero."""

    def __init__(self, start: Tensor) -> None:
        self.steps = start.new_zeros(len(start), 0, start.shape[1])
        self.changes = self.steps

    def add(self, step: Tensor, change: Tensor, taken: Tensor) -> None:
        """Remember a pair (R, D) for the rows (R,) that took the step along a convex curve."""
        convex = (step * change).sum(1) > _FLAT * change.square().sum(1)
        kept = (taken & convex)[:, None, None]
        self.steps = self._pushed(self.steps, step, kept)
        self.changes = self._pushed(self.changes, change, kept)

    @staticmethod
    def _pushed(stack: Tensor, new: Tensor, kept: Tensor) -> Tensor:
        # A row that has nothing to add gets an empty pair at its old end, so that all stay equal
        # in number; an empty pair changes no direction.
        if stack.shape[1] < _MEMORY:
            stack = torch.cat([torch.zeros_like(new)[:, None], stack], dim=1)
        return torch.where(kept, torch.cat([stack[:, 1:], new[:, None]], dim=1), stack)

    def direction(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Return the quasi-Newton descent direction (R, D) among the variables that are free."""
        held = ((point <= 0) & (gradient > 0)) | ((point >= 1) & (gradient < 0))
        free = ~held
        slope = gradient * free
        steps, changes = self.steps * free[:, None], self.changes * free[:, None]
        curvature = (steps * changes).sum(2)
        energy = changes.square().sum(2)
        known = curvature > _FLAT * energy
        inverse = (1 / curvature.clamp_min(1e-30)).masked_fill(~known, 0.0)
        current, weights = slope, []
        for pair in reversed(range(steps.shape[1])):
            weight = inverse[:, pair] * (steps[:, pair] * current).sum(1)
            current = current - weight[:, None] * changes[:, pair]
            weights.append(weight)
        current = current * self._scale(curvature, energy, known)[:, None]
        for pair, weight in enumerate(reversed(weights)):
            back = inverse[:, pair] * (changes[:, pair] * current).sum(1)
            current = current + (weight - back)[:, None] * steps[:, pair]
        return torch.where((current * slope).sum(1, keepdim=True) > 0, -current, -slope)

    @staticmethod
    def _scale(curvature: Tensor, energy: Tensor, known: Tensor) -> Tensor:
        """Return each row's inverse curvature (R,) along its last pair; one where none is known."""
        scale = torch.ones(len(known), dtype=curvature.dtype, device=known.device)
        for pair in range(known.shape[1]):
            ratio = curvature[:, pair] / energy[:, pair].clamp_min(1e-30)
            scale = torch.where(known[:, pair], ratio, scale)
        return scale
