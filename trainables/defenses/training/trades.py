"""Trade-off between accuracy and the largest change of the prediction inside a ball.

Axes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.attacks.shared.ascent import ascend
from trainables.attacks.shared.balls import ball
from trainables.attacks.shared.losses import RowLoss
from trainables.defenses.defense import Defense, View
from trainables.defenses.training.adversarial_examples import draw_radii, radii_parameter
from trainables.device import full_precision
from trainables.parameters import parameter
from trainables.training.modes import frozen_for_attack

START = 0.001
"""Standard deviation of the noise that the ascent starts from, in pixel units. At the image itself
the divergence is least, and its gradient zero."""


@dataclass(frozen=True, kw_only=True)
class Trades(Defense):
    """Minimise CE(f(x), y) + beta KL(f(x) || f(x')), x' the maximiser of that KL in the ball.

    x' is made in eval mode, from x + 0.001 N(0, I) by signed steps of eps / 4, of the current
    weights. Both terms are means over the batch, and gradients flow through both sides of the
    divergence. x and x' pass the network in one batch, so that batch norm's statistics, of the
    mixture, move once a step (the authors pass them one after the other). A label defense changes
    the targets of the first term alone. Source: Zhang et al., 2019, eq. 5 and algorithm 1.
    """

    name = "trades"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Penalise the largest change of the prediction inside a ball round each image."
    source = "Zhang et al., 2019"
    limits = (
        "It holds, as far as it does, in the one Linf ball that it was trained in, and clean "
        "accuracy pays for it.",
    )
    broken_by = (
        "Croce & Hein, 2020 (AutoAttack): the published CIFAR-10 network falls from 56.6 % to "
        "53.1 % robust accuracy.",
    )
    owns = ("inner_maximisation",)

    eps: tuple[float, ...] = radii_parameter("radius of the ball")
    beta: float = parameter(
        6.0, kind="float", meaning="weight of the divergence", low=0.0, high=1000.0
    )
    # Not in the published formula, but part of the algorithm: 10 in the authors' CIFAR-10 script.
    steps: int = parameter(10, kind="int", meaning="gradient steps", low=1, high=1000)

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Return the views, then their maximisers with weight 0: they have no part in the CE."""
        found = [View(self._maximise(model, v.x, generator), v.target, 0.0) for v in views]
        return [*views, *found]

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        """Return beta times the weighted mean divergence between the views and their maximisers."""
        clean = [view for view in views if view.weight != 0]
        moved = [view for view in views if view.weight == 0]
        total = torch.zeros((), device=views[0].x.device)
        for before, after in zip(clean, moved, strict=True):
            divergence = _divergence(_scores(before), _scores(after))
            total = total + before.weight * divergence.mean()
        return self.beta * total

    def _maximise(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        radii = draw_radii(self.eps, len(x), generator, x.device)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        # A precaution: at the start the two answers are so close that bfloat16 may round their
        # difference away. Equality of both precisions has not been shown on three seeds.
        with frozen_for_attack(model), full_precision(x.device):
            with torch.no_grad():
                clean = model(x)
            return ascend(
                model,
                x,
                clean.argmax(1),
                _divergence_from(clean),
                ball=ball("linf"),
                eps=radii,
                step_sizes=[radii / 4] * self.steps,
                start=x + START * noise,
                early_stop=False,
            )


def _divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """Return KL(softmax(clean) || softmax(moved)) of each row (B,) of two scores (B, K)."""
    expected, found = F.log_softmax(clean, 1), F.log_softmax(moved, 1)
    # torch's order: the approximating distribution first.
    return F.kl_div(found, expected, reduction="none", log_target=True).sum(1)


def _divergence_from(clean: Tensor) -> RowLoss:
    return lambda scores, rows: _divergence(clean[rows], scores)


def _scores(view: View) -> Tensor:
    assert view.scores is not None  # the training fills them in before it asks for penalties
    return view.scores
