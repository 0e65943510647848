"""How a detector does on the images that it finds hardest, of several attacks.

Axes: N points, M of them whose images fool the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from trainables.metrics import intervals
from trainables.records.value import Measured

FPR = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Suspects:
    """Scores of the images by which an attack fools the classifier, and of the same unattacked."""

    attacked: intervals.Floats
    """(M,) larger is more suspicious."""
    innocent: intervals.Floats
    """(M,)"""

    @classmethod
    def of(cls, attacked: Tensor, innocent: Tensor, success: Tensor) -> Suspects:
        """Take the scores (N,) of the points where the attack succeeds (N,)."""
        return cls(attacked[success].cpu().numpy(), innocent[success].cpu().numpy())

    def __len__(self) -> int:
        return len(self.attacked)

    def area(self, level: float = intervals.LEVEL) -> Measured:
        """Return the area under the ROC."""
        # Each image is on both sides, attacked and not: there are as many items as images.
        return replace(intervals.auc(self.attacked, self.innocent, level), n=len(self))

    def found(self, level: float = intervals.LEVEL) -> Measured:
        """Return the share of attacked images above the threshold at 5 % false positives."""
        threshold = np.quantile(self.innocent, 1 - FPR, method="higher")
        count = int((self.attacked > threshold).sum())
        return intervals.proportion(count, len(self), level)


def comparable(suspects: Mapping[str, Suspects]) -> dict[str, Suspects]:
    """Return the attacks with at least half as many successes as the one with most, and one.

    A detector that is judged on the few images of an attack which hardly succeeds is judged by
    chance.
    """
    most = max((len(found) for found in suspects.values()), default=0)
    return {name: found for name, found in suspects.items() if 2 * len(found) >= max(most, 1)}


def hardest(measured: Mapping[str, Measured]) -> tuple[str, Measured]:
    """Return the attack with the lowest figure, and the figure.

    The attack that looks hardest is chosen by chance too: the figures' intervals at the level
    `level_of` hold together (Sidak, 1967), so the lowest of all lies between the lowest of their
    lower ends and the lowest of their upper ends. n is that of the attack.
    """
    name = min(measured, key=lambda attack: measured[attack].value)
    low = min(found.low for found in measured.values())
    high = min(found.high for found in measured.values())
    return name, replace(measured[name], low=low, high=high)


def level_of(count: int) -> float:
    """Return the level at which each of some intervals is taken, so that all hold together."""
    return float(intervals.LEVEL ** (1 / count))
