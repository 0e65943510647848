"""Accuracy under attack over the L2 size of the attack: of two attacks the worse one counts.

Axes: N points, R points that stand so far, C channels, H, W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.attacks.shared.balls import Radius, broadcast
from trainables.deployed.predictor import ask
from trainables.metrics import at_eps, intervals
from trainables.records.value import MetricValue
from trainables.threats.evasion.attacking import BATCH, Attacker, Settings
from trainables.threats.evasion.run import lengths, withstands
from trainables.threats.threat import Findings

_METRIC = "robust_accuracy_l2"
_CW, _STRETCHED, _PGD = "carlini_wagner", "carlini_wagner_stretched", "pgd_l2"
_ON_RANDOM: Settings = {
    _CW: {
        "steps": 100,
        "search_steps": 3,
        "initial_const": 1.0,
        "step_size": 0.05,
        "confidence": 1.0,
    }
}
"""Settings on a random model. The smallest image that one answer calls fooled is often one that its
draws were kind to, and a fresh answer is right again: so the confidence. Of 0, 1 and 2 on
pixeldp_cnn (MNIST), 1 broke the most points at every size before anything is stretched; with the
attack's own const and step nothing broke.
"""
_STRETCHES = 10
"""Times that a direction is lengthened to make up for what the pixel range cut off."""


def curve_names(sizes: Sequence[float]) -> tuple[str, ...]:
    """Name the metrics of a curve over sizes in pixel units."""
    return tuple(at_eps(_METRIC, size) for size in sizes)


def l2_curve(attacker: Attacker, right: Tensor, sizes: Sequence[float]) -> Findings:
    """Measure accuracy under attack at L2 sizes in pixel units, over all points.

    `right` (N,) are the points that are right without an attack; the others are broken at size 0.
    What is broken at one size is so at every larger one, whose ball holds its image. What still
    stands is attacked on every surface: by Carlini and Wagner's attack, once for all sizes, and by
    PGD at each size. An image breaks its point only if a fresh answer of the deployed model to it
    is wrong. Source: the attack of Lecuyer et al., 2019, section V, and PGD alongside it.
    """
    if not sizes:
        return Findings(metrics={})
    if attacker.target.stochastic:
        attacker = attacker.with_settings({**attacker.settings, **_ON_RANDOM})
    total, standing = len(attacker.points), right.nonzero().flatten()
    found = _smallest_changes(attacker.on(standing))
    metrics: dict[str, MetricValue] = {}
    first_broken_by = {}
    for size in sorted(sizes):
        at_size = _AtSize(attacker.on(standing), size)
        for number, smallest in enumerate(found):
            at_size.take(smallest)
            at_size.stretch(smallest, number)
        at_size.ascend()
        stands = at_size.stands
        metrics[at_eps(_METRIC, size)] = intervals.proportion(int(stands.sum()), total)
        first_broken_by[f"{size:.4f}"] = at_size.broken_by
        standing, found = standing[stands], [smallest.select(stands) for smallest in found]
    notes = {
        "n": total,
        "broken_without_attack": total - int(right.sum()),
        "first_broken_by": first_broken_by,
        "settings": {name: dict(attacker.settings.get(name, {})) for name in (_CW, _PGD)},
        "draws": [surface.draws for surface in attacker.target.surfaces],
    }
    return Findings(metrics=metrics, notes={"l2_curve": notes})


def stretched(x: Tensor, change: Tensor, length: Radius) -> Tensor:
    """Lengthen or cut back changes (R, C, H, W) of images x to an L2 length, one or one each.

    What the pixel range cuts off is made up for by a larger factor, from below, so that no change
    gets longer than asked for; one of which all pixels are at a bound stays shorter.
    """
    factor = broadcast(length / lengths(change, "l2").clamp_min(1e-12), x)
    for _ in range(_STRETCHES):
        reached = lengths((x + factor * change).clamp(0, 1) - x, "l2").clamp_min(1e-12)
        factor = factor * broadcast(length / reached, x).clamp(1, 10)
    found = (x + factor * change).clamp(0, 1) - x
    # Rounding may have made it longer by a last digit.
    return found * broadcast((length / lengths(found, "l2").clamp_min(1e-12)).clamp_max(1), x)


@dataclass(frozen=True, slots=True, eq=False)
class _Smallest:
    """What Carlini and Wagner's attack made of points on one surface."""

    change: Tensor
    """(R, C, H, W), 0 where it found nothing."""
    broken: Tensor
    """(R,) whether the deployed model's fresh answer to the image was wrong."""

    @property
    def length(self) -> Tensor:
        """(R,) L2 length of the changes."""
        return lengths(self.change, "l2")

    def select(self, rows: Tensor) -> _Smallest:
        """Return some of the points."""
        return _Smallest(self.change[rows], self.broken[rows])


def _smallest_changes(attacker: Attacker) -> list[_Smallest]:
    """Run Carlini and Wagner's attack on each surface; it wants no radius."""
    if len(attacker.points) == 0:
        return []
    found = []
    for surface in attacker.target.surfaces:
        alone = attacker.of(replace(attacker.target, surfaces=(surface,), changed=True))
        run = alone.run(_CW, eps=math.inf)
        found.append(_Smallest(run.adversarial - attacker.points.images(), run.broken))
    return found


class _AtSize:
    """The points that stand before one size, and what the attacks of that size do to them."""

    def __init__(self, attacker: Attacker, size: float) -> None:
        self.attacker, self.size = attacker, size
        self.stands = torch.ones_like(attacker.points.labels, dtype=torch.bool)
        self.broken_by = dict.fromkeys((_CW, _STRETCHED, _PGD), 0)

    def take(self, smallest: _Smallest) -> None:
        """Count what broke the model and is within the size."""
        moved, within = smallest.length > 0, smallest.length <= self.size
        rows = (moved & within & smallest.broken & self.stands).nonzero().flatten()
        self._note(_CW, rows)

    def stretch(self, smallest: _Smallest, number: int) -> None:
        """Go as far as the size in the direction found, and query the deployed model again."""
        target, points, ctx = self.attacker.target, self.attacker.points, self.attacker.ctx
        generator = ctx.generator("l2_curve", f"{self.size:.9f}", str(number))
        rows = ((smallest.length > 0) & self.stands).nonzero().flatten()
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            x, y = points.images(part), points.labels[part]
            image = (x + stretched(x, smallest.change[part], self.size)).clamp(0, 1)
            answer = ask(target.predictor, image, generator, ctx.dataset.num_classes)
            self._note(_STRETCHED, part[~withstands(answer, y)])

    def ascend(self) -> None:
        """Run PGD on what stands; its runner queries the deployed model again."""
        rows = self.stands.nonzero().flatten()
        if len(rows) > 0:
            run = self.attacker.on(rows).run(_PGD, eps=self.size)
            self._note(_PGD, rows[run.broken])

    def _note(self, name: str, rows: Tensor) -> None:
        self.stands[rows] = False
        self.broken_by[name] += len(rows)
