"""What one attack did to the deployed model, image by image.

Axes: N points, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.deployed.predictor import REFUSED, Prediction


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Run:
    """What one attack did: on the surface that suffered most, image by image."""

    adversarial: Tensor
    """(N, C, H, W)"""
    withstood: Tensor
    """(N,) whether the deployed model answers it right, or a detector rejects it."""
    fooled: Tensor
    """(N,) whether the deployed model classifies it wrong, be it rejected or not."""
    disagrees: Tensor
    """(N,) whether every surface was fooled by its own image and the deployed model was not."""
    nll: Tensor
    """(N,) negative log-likelihood of the true class, as deployed, in nats."""
    by_rounding: Tensor
    """(N,) whether the image succeeds rounded as a file holds it, and not as it was made."""
    queries: Tensor | None = None
    """(N,) times that a score-only attack asked for an image's scores."""
    gradients: int = 0
    """Gradients of single images that the attack took from the surfaces."""
    not_finite: int = 0
    """Those of them that were not finite; it goes by their signs."""

    @property
    def broken(self) -> Tensor:
        """(N,) whether the attack succeeds against the deployed model."""
        return ~self.withstood

    def with_rows(self, rows: Tensor, second: Run) -> Run:
        """Put what a second run made of the rows (R,) that withstood this one in their places."""

        def put(before: Tensor, after: Tensor) -> Tensor:
            return before.index_copy(0, rows, after)

        return Run(
            adversarial=put(self.adversarial, second.adversarial),
            withstood=put(self.withstood, second.withstood),
            fooled=put(self.fooled, second.fooled),
            disagrees=put(self.disagrees, self.disagrees[rows] & second.disagrees),
            nll=put(self.nll, second.nll),
            by_rounding=put(self.by_rounding, second.by_rounding),
            queries=self.queries,
        )

    def improved(self, second: Run) -> Run:
        """Take a second run's images where they break what this one's do not."""
        rows = (second.broken & self.withstood).nonzero().flatten()
        chosen = Run(
            adversarial=second.adversarial[rows],
            withstood=second.withstood[rows],
            fooled=second.fooled[rows],
            disagrees=second.disagrees[rows],
            nll=second.nll[rows],
            by_rounding=second.by_rounding[rows],
        )
        return self.with_rows(rows, chosen)


def joined(parts: Sequence[Run]) -> Run:
    """Join the runs of one attack on batches of points."""
    counted = [part.queries for part in parts if part.queries is not None]
    return Run(
        adversarial=torch.cat([part.adversarial for part in parts]),
        withstood=torch.cat([part.withstood for part in parts]),
        fooled=torch.cat([part.fooled for part in parts]),
        disagrees=torch.cat([part.disagrees for part in parts]),
        nll=torch.cat([part.nll for part in parts]),
        by_rounding=torch.cat([part.by_rounding for part in parts]),
        queries=torch.cat(counted) if counted else None,
    )


def lengths(delta: Tensor, norm: str) -> Tensor:
    """Return the length (N,) of perturbations: linf, l2, or l0 as the number of changed pixels."""
    if norm == "l0":
        return delta.ne(0).any(1).flatten(1).sum(1).to(delta.dtype)
    flat = delta.flatten(1)
    found: Tensor = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
    return found


def withstands(answer: Prediction, labels: Tensor) -> Tensor:
    """Return where an attack fails (N,): the answer is right, or a detector rejects the image.

    An abstention (no label, and no score to reject by) is wrong, as it is everywhere.
    """
    right = answer.label == labels
    if answer.reject_score is None:
        return right
    return right | (answer.label == REFUSED)
