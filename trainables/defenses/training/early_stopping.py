"""A training that ends when the calibration loss no longer falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from trainables.defenses.defense import Defense, EpochData, EpochVerdict
from trainables.parameters import parameter
from trainables.training.evaluation import loss_and_accuracy


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Defense):
    """Stop after `patience` epochs without a lower calibration loss and keep the best epoch.

    Source: Prechelt, 1998; against membership inference: Song and Mittal, 2021.
    """

    name = "early_stopping"
    slot = "stopping"
    guarantee = "empirical"
    meaning = "Stop the training when the calibration loss no longer falls; keep the best epoch."
    source = "Prechelt, 1998; against membership inference: Song & Mittal, 2021"
    limits = (
        "It chooses an epoch; the network of that epoch is as breakable as its training left it.",
    )
    broken_by = ("No attack on it by itself is known to us.",)
    patience: int = parameter(
        3, kind="int", meaning="epochs without improvement that are borne", low=1, high=1000,
        unit="epochs",
    )  # fmt: skip

    @property
    def needs_calibration(self) -> bool:
        """Whether the calibration pool is used: always."""
        return True

    def epoch_score(self, model: nn.Module, data: EpochData) -> float | None:
        """Return the mean cross-entropy on the calibration pool."""
        assert data.calibration is not None  # refused before, where there is none
        return loss_and_accuracy(model, data.calibration).loss

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict | None:
        """Keep the lowest loss; stop when it is `patience` epochs old."""
        best = min(range(len(scores)), key=lambda epoch: scores[epoch])
        return EpochVerdict(stop=len(scores) - 1 - best >= self.patience, best_epoch=best)
