"""What a stranger who may only ask the deployed model learns of where a class' margin grows.

Axes: B points, P pairs, C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.deployed.predictor import REFUSED, SMALLEST_LOG, Faults, Predictor, ask
from trainables.threats.inversion.attack import BATCH, Slope, margins
from trainables.threats.inversion.domain import Domain

CHANGE = 0.1
"""Root mean square size of the changes that are asked about, in coordinates of the domain."""
_WORST = 2 * SMALLEST_LOG
"""What a refused image counts as: less than any margin of log-probabilities."""


@dataclass(slots=True, eq=False)
class Asked:
    """The deployed model as a stranger has it: images in, answers out, each of them counted."""

    predictor: Predictor
    num_classes: int
    generator: torch.Generator
    count: int = 0
    """Images that it was asked about so far."""
    faults: Faults = field(default_factory=Faults)
    """What was wrong with its answers, for the asker to check: a look at each would be a wait."""

    def margins(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the margins (B,) of the answered log-probabilities on images (B, C, H, W).

        A refused image is worth less than any other. Raises PredictorError for answers of another
        shape.
        """
        found = []
        for x, y in zip(torch.split(images, BATCH), torch.split(classes, BATCH), strict=True):
            answer = ask(self.predictor, x, self.generator, self.num_classes, self.faults)
            margin = margins(answer.log_probabilities.clamp_min(SMALLEST_LOG), y)
            found.append(margin.masked_fill(answer.label == REFUSED, _WORST))
        self.count += len(images)
        return torch.cat(found)


def asked_slope(asked: Asked, domain: Domain, generator: torch.Generator, *, pairs: int) -> Slope:
    """Return the slope of who may only ask: the mean of random changes, each signed by its effect.

    A change is asked about in both directions, and which answer is the better decides its sign:
    how much better plays no part, so that neither a temperature nor rounding nor a refusal
    outweighs the rest. Each slope takes `pairs` pairs of queries a point. Source: natural evolution
    strategies, Wierstra et al., 2014 (fitness shaping by rank), with antithetic draws, Salimans et
    al., 2017; against the confidences of a classifier: Ilyas et al., 2018.
    """

    def slope(points: Tensor, classes: Tensor) -> Tensor:
        total = torch.zeros_like(points)
        with torch.no_grad():
            for drawn in _parts(pairs, len(points)):
                again = points.repeat(drawn, 1, 1, 1)
                change = domain.changes(again, generator)
                sides = [domain.inside(again + sign * CHANGE * change) for sign in (1, -1)]
                values = [
                    asked.margins(domain.images(side), classes.repeat(drawn)) for side in sides
                ]
                votes = (values[0] - values[1]).sign()[:, None, None, None]
                total += (votes * change).view(drawn, *points.shape).sum(0)
        asked.faults.check()
        return total

    return slope


def _parts(pairs: int, points: int) -> list[int]:
    """Split pairs so that some BATCH images are asked about at once."""
    at_once = max(1, BATCH // points)
    return [min(at_once, pairs - first) for first in range(0, pairs, at_once)]
