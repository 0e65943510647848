"""Activation clustering: the smaller cluster of a class goes where it is small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.making import context_of, random_images, spec_of
from trainables.datasets import LabelledImages
from trainables.defenses import Stack
from trainables.defenses.filters import activation_clustering
from trainables.defenses.filters.activation_clustering import ActivationClustering, smaller_cluster
from trainables.storage.identity import seed_from
from trainables.trial.context import TrialContext

Floats = NDArray[np.float64]


def _clusters(*sizes: int, distance: float = 8.0, features: int = 12) -> Floats:
    """Return groups of rows around points that far apart, with unit noise."""
    draw = np.random.default_rng(0)
    parts = [draw.normal(size=(size, features)) for size in sizes]
    for place, part in enumerate(parts):
        part[:, place] += distance
    return np.concatenate(parts)


@pytest.fixture
def ctx(tmp_path: Path) -> TrialContext:
    """Return a context, of which the filter asks the seed alone."""
    return context_of(spec_of(), tmp_path)


def _removed(
    defense: ActivationClustering,
    labels: list[int],
    features: Floats,
    ctx: TrialContext,
    monkeypatch: pytest.MonkeyPatch,
) -> list[int]:
    monkeypatch.setattr(
        activation_clustering, "representation", lambda data, ctx: torch.tensor(features)
    )
    data: LabelledImages = replace(random_images(len(labels)), labels=torch.tensor(labels))
    return sorted(set(range(len(data))) - set(defense.filter(data, ctx).tolist()))


def test_the_smaller_cluster_is_found() -> None:
    small = smaller_cluster(_clusters(70, 12), 10, seed=0)
    assert small.tolist() == [False] * 70 + [True] * 12


@pytest.mark.parametrize("components", [1, 5, 1000])
def test_there_are_no_more_components_than_features_and_rows(components: int) -> None:
    small = smaller_cluster(_clusters(9, 3, features=30), components, seed=0)
    assert small.tolist() == [False] * 9 + [True] * 3


def test_a_seed_of_a_shadow_model_is_none_too_many() -> None:
    seed = seed_from("shadow")
    assert seed >= 2**32
    features = _clusters(30, 5)
    first, again = (smaller_cluster(features, 10, seed=seed) for _ in range(2))
    assert np.array_equal(first, again) and int(first.sum()) == 5


def test_poison_that_forms_a_cluster_is_removed_wholly_and_nothing_else(
    ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.random.default_rng(1).permutation(100)
    features = _clusters(90, 10)[order]
    found = _removed(ActivationClustering(), [0] * 100, features, ctx, monkeypatch)
    assert found == [place for place, row in enumerate(order) if row >= 90]


@pytest.mark.parametrize(("second", "removed"), [(34, 34), (36, 0), (50, 0)])
def test_a_split_that_is_about_even_is_left_alone(
    second: int, removed: int, ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = _clusters(100 - second, second)
    found = _removed(ActivationClustering(), [0] * 100, features, ctx, monkeypatch)
    assert found == list(range(100 - second, 100))[:removed]


@pytest.mark.parametrize(("share", "removed"), [(0.0, 0), (0.19, 0), (0.2, 10), (0.5, 10)])
def test_the_largest_share_says_how_small_is_small(
    share: float, removed: int, ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    defense = ActivationClustering(largest_share=share)
    found = _removed(defense, [0] * 50, _clusters(40, 10), ctx, monkeypatch)
    assert len(found) == removed


def test_each_class_is_clustered_by_itself_and_few_rows_are_left_alone(
    ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.concatenate([_clusters(30, 5), 50 + _clusters(20, 4), 90 * _clusters(2, 1)])
    labels = [0] * 35 + [1] * 24 + [2] * 3
    found = _removed(ActivationClustering(), labels, features, ctx, monkeypatch)
    assert found == [*range(30, 35), *range(55, 59)]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters", "ignore:invalid value")
def test_rows_that_are_all_alike_are_left_alone(
    ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _removed(ActivationClustering(), [0] * 20, np.ones((20, 6)), ctx, monkeypatch)
    assert found == []


def test_the_representation_is_the_undefended_model(tmp_path: Path) -> None:
    undefended = context_of(spec_of(), tmp_path)
    plain = undefended.train(Stack(), undefended.pools.train, 0)
    ctx = context_of(spec_of(ActivationClustering()), tmp_path)
    trained = ctx.train(ctx.spec.stack, ctx.pools.train, 0)
    assert ctx.used["representation"] == plain.key
    assert set(ctx.phases) == {plain.key, trained.key}
