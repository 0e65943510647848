"""Removal of the training rows that stand out in their class along its main direction.

Axes: N rows, R rows of a class, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.filters.representation import representation
from trainables.parameters import parameter

EXCESS = 1.5
"""Times the expected rate of poison that is removed (Tran et al., 2018)."""


@dataclass(frozen=True, kw_only=True)
class SpectralSignatures(Defense):
    """Remove from each class the rows with the largest spectral scores, then train from scratch.

    The features are those of an undefended network trained on all rows; it is shared between
    trials. Source: Tran et al., 2018, algorithm 1.
    """

    name = "spectral_signatures"
    slot = "data_filter"
    guarantee = "empirical"
    meaning = "Remove the rows that stand out along their class' main direction, then retrain."
    source = "Tran et al., 2018"
    limits = (
        "It removes rows of every class, poisoned or not, and needs a guess of how many are.",
        "Whether it finds the poison depends on the pair of classes and on the network.",
    )
    broken_by = (
        "Tan & Shokri, 2020 (Bypassing backdoor detection algorithms): a poison made to leave "
        "the latent representations alike is not seen.",
        "Qi et al., 2023 (Revisiting the assumption of latent separability): patch and blended "
        "triggers that adapt to it pass the filter.",
    )
    adaptive_backdoor = "adaptive_blend"
    needs = ("features",)

    removal_fraction: float = parameter(
        0.1, kind="float", meaning="share of each class that is removed", low=0.0, high=0.9
    )
    expected_rate: float | None = parameter(
        None, kind="float", low=0.0, high=0.6,
        meaning="expected share of poison in a class; 1.5 times it is removed instead",
    )  # fmt: skip
    centred: bool = parameter(
        True, kind="bool",
        meaning="score centred features, as the paper has it; its code and others' do not",
    )  # fmt: skip

    def filter(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        """Return the rows that are kept, in order."""
        scores = self.row_scores(data, ctx)
        kept = torch.ones(len(data), dtype=torch.bool, device=data.labels.device)
        for label in torch.unique(data.labels):
            rows = (data.labels == label).nonzero().flatten()
            # However few rows a class has, one stays: a class is never unlearned.
            count = min(math.floor(self.fraction * len(rows) + 0.5), len(rows) - 1)
            kept[rows[scores[rows].argsort(descending=True, stable=True)[:count]]] = False
        return kept.nonzero().flatten()

    def row_scores(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        """Return the spectral score (N,) of each row in its own class."""
        features = representation(data, ctx)
        scores = torch.zeros(len(data), dtype=torch.float64, device=data.labels.device)
        for label in torch.unique(data.labels):
            rows = data.labels == label
            scores[rows] = spectral_scores(features[rows], centred=self.centred)
        return scores

    @property
    def fraction(self) -> float:
        """The share of each class that is removed."""
        if self.expected_rate is None:
            return self.removal_fraction
        return EXCESS * self.expected_rate


def spectral_scores(features: Tensor, *, centred: bool = True) -> Tensor:
    """Score the features (R, D) of one class along their first principal direction v.

    Centred: ((f - mean) v)^2, algorithm 1 of Tran et al. Not centred: |f v| with the same v, which
    is what their code and the Adversarial Robustness Toolbox compute; it finds half of the poison.
    Scores (R,) float64: squares of float32 features would be wrong in the sixth place.
    """
    features = features.double()
    deviations = features - features.mean(0)
    direction = torch.linalg.svd(deviations, full_matrices=False).Vh[0]
    scores: Tensor
    scores = (deviations @ direction).square() if centred else (features @ direction).abs()
    return scores
