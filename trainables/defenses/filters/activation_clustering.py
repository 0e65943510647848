"""Removal of the training rows whose activations form a small cluster of their own in a class.

Axes: N rows, R rows of a class, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.filters.representation import representation
from trainables.parameters import parameter

_RESTARTS = 10
_FEWEST = 4
"""Rows of a class below which two clusters mean nothing, and none is removed."""


@dataclass(frozen=True, kw_only=True)
class ActivationClustering(Defense):
    """Split each class in two clusters, and remove the smaller one where it is small enough.

    Poisoned rows reach the target class by another way than its own, so that they form a cluster;
    rows of a clean class split about evenly. The features are those of an undefended network
    trained on all rows. Source: Chen et al., 2018 (relative size comparison; PCA in place of ICA,
    which need not converge).
    """

    name = "activation_clustering"
    slot = "data_filter"
    guarantee = "empirical"
    meaning = "Remove the smaller of two clusters of a class' activations where it is small."
    source = "Chen et al., 2018"
    limits = (
        "It removes clean rows where a class falls into two clusters by itself, and none where "
        "poison does not form one.",
    )
    broken_by = (
        "Tan & Shokri, 2020 (Bypassing backdoor detection algorithms): a poison made to leave "
        "the latent representations alike is not seen.",
        "Qi et al., 2023 (Revisiting the assumption of latent separability): triggers that "
        "adapt to it are not separated by their clusters.",
    )
    adaptive_backdoor = "adaptive_blend"
    needs = ("features",)

    components: int = parameter(
        10, kind="int", meaning="principal components that are clustered", low=1, high=1000
    )
    largest_share: float = parameter(
        0.35, kind="float", meaning="share of its class up to which a cluster is removed",
        low=0.0, high=0.5,
    )  # fmt: skip

    def filter(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        """Return the rows that are kept, in order."""
        features = representation(data, ctx).double().cpu().numpy()
        labels = data.labels.cpu().numpy()
        kept = np.ones(len(data), dtype=bool)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            if len(rows) < _FEWEST:
                continue
            small = smaller_cluster(features[rows], self.components, seed=ctx.seed)
            if small.mean() <= self.largest_share:
                kept[rows[small]] = False
        return torch.from_numpy(np.flatnonzero(kept)).to(data.labels.device)


def smaller_cluster(
    features: NDArray[np.float64], components: int, *, seed: int
) -> NDArray[np.bool_]:
    """Return which rows (R,) of a class' features (R, D) lie in the smaller of two clusters."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    most = min(components, *features.shape)
    reduced = PCA(most, svd_solver="full").fit_transform(features)
    # sklearn takes seeds of 32 bits, and those of shadow models have more.
    means = KMeans(2, n_init=_RESTARTS, random_state=seed % 2**32)
    clusters = means.fit_predict(reduced)
    smaller = int(np.bincount(clusters, minlength=2).argmin())
    found: NDArray[np.bool_] = clusters == smaller
    return found
