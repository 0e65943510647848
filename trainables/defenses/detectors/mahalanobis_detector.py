"""Refusal of images whose features lie far from those of every class.

Axes: B batch, N training images, C channels, H, W, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.detectors.detector import DetectingPredictor, threshold_on_calibration
from trainables.deployed.predictor import Predictor
from trainables.parameters import parameter
from trainables.storage.artefacts import Artefact
from trainables.training.evaluation import in_batches


@dataclass(frozen=True, kw_only=True)
class MahalanobisDetector(Defense):
    """Reject an image whose features are far from the nearest class mean.

    Distance is Mahalanobis's, with one covariance for all classes, from the penultimate features
    of the training set before any filter; the covariance is shrunk (Ledoit and Wolf, 2004), since
    features that are never active make it singular. Without the input noise and the regression over
    layers of Lee et al., which are fitted to attacks. Source: Lee et al., 2018, equation 2.
    """

    name = "mahalanobis_detector"
    slot = "deployment"
    guarantee = "empirical"
    meaning = "Reject images whose features are far from every class of the training set."
    source = "Lee et al., 2018"
    limits = (
        "It rejects a share of clean images by design; here it has neither the input noise nor "
        "the layers of Lee et al.",
    )
    broken_by = (
        "Carlini & Wagner, 2017 (Bypassing ten detection methods): detectors, those on hidden "
        "layers among them, fall to attacks that aim at being accepted.",
    )
    needs = ("features",)

    false_positive_rate: float = parameter(
        0.05, kind="float", meaning="share of clean images that may be rejected", low=0.01, high=0.5
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether something is fitted on the calibration pool: the threshold is."""
        return True

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Fit the distance on the training set and its threshold on the calibration pool."""
        # In eval mode, where a randomised network, given no generator, is not random.
        features = cast(Callable[[Tensor], Tensor], predictor.model.features)

        def fit() -> Artefact:
            with torch.no_grad():
                known = in_batches(lambda x: features(x).float(), ctx.pools.train)
            found = fit_distance(known, ctx.pools.train.labels)
            return Artefact({"whitening": found.whitening, "means": found.means})

        fitted = ctx.fitted("distance", fit).tensors
        distance = Distance(*(fitted[part].to(ctx.device) for part in ("whitening", "means")))

        def score(x: Tensor, generator: torch.Generator) -> Tensor:
            del generator
            return distance(features(x).float())

        threshold = threshold_on_calibration(score, self.false_positive_rate, ctx)
        return DetectingPredictor(predictor, score, threshold, passes=1)


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """The squared Mahalanobis distance to the nearest class mean."""

    whitening: Tensor
    """(D, D): features times it have the unit covariance."""
    means: Tensor
    """(K, D) of the classes, after whitening."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return the distance (B,) of features (B, D), differentiable."""
        white = features @ self.whitening
        return (white[:, None] - self.means).square().sum(2).amin(1)


def fit_distance(features: Tensor, labels: Tensor) -> Distance:
    """Fit class means and the shared covariance to features (N, D) with labels (N,).

    A class without an image has no mean and is never the nearest.
    """
    from sklearn.covariance import LedoitWolf

    features_ND = features.double().cpu().numpy()
    present, rows = np.unique(labels.cpu().numpy(), return_inverse=True)
    means_KD = np.stack([features_ND[rows == row].mean(0) for row in range(len(present))])
    within = LedoitWolf(assume_centered=True).fit(features_ND - means_KD[rows])
    # Of a covariance L L', the rows f inverse(L)' have the unit covariance.
    lower = np.linalg.cholesky(within.covariance_)
    whitening = solve_triangular(lower, np.eye(len(lower)), lower=True).T
    return Distance(
        torch.tensor(whitening, dtype=torch.float32, device=features.device),
        torch.tensor(means_KD @ whitening, dtype=torch.float32, device=features.device),
    )
