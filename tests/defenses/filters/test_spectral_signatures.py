"""Spectral signatures: the scores, the rows that go by them, and what is shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.making import context_of, random_images, spec_of
from trainables.datasets import LabelledImages
from trainables.defenses import Stack
from trainables.defenses.filters import spectral_signatures
from trainables.defenses.filters.spectral_signatures import SpectralSignatures, spectral_scores
from trainables.trial.context import TrialContext

Floats = NDArray[np.float64]


def _features(rows: int = 60, size: int = 12, seed: int = 0) -> Floats:
    """Return correlated features that lie far from the origin."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(rows, size)) @ draw.normal(size=(size, size)) + 3


def _with_poison(clean: int = 90, poisoned: int = 10) -> Floats:
    """Return features of a class whose last rows lack what the class' own rows have."""
    features = np.random.default_rng(0).normal(scale=0.3, size=(clean + poisoned, 8))
    features[:clean, 1] += 3
    return features


@pytest.fixture
def ctx(tmp_path: Path) -> TrialContext:
    """Return a context, of which the filter asks nothing where the features are put in place."""
    return context_of(spec_of(), tmp_path)


def _put(features: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the representation be these features."""
    monkeypatch.setattr(
        spectral_signatures, "representation", lambda data, ctx: torch.tensor(features)
    )


def _labelled(labels: list[int]) -> LabelledImages:
    return replace(random_images(len(labels)), labels=torch.tensor(labels))


def _removed(defense: SpectralSignatures, data: LabelledImages, ctx: TrialContext) -> list[int]:
    return sorted(set(range(len(data))) - set(defense.filter(data, ctx).tolist()))


@pytest.mark.parametrize(("rows", "size"), [(60, 12), (7, 30), (2, 5), (1, 4)])
def test_centred_scores_are_the_paper_s(rows: int, size: int) -> None:
    features = _features(rows, size)
    deviations = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(deviations.T @ deviations)
    expected = (deviations @ vectors[:, values.argmax()]) ** 2
    found = spectral_scores(torch.tensor(features)).numpy()
    if rows > 1:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    else:
        assert found.tolist() == [0.0]


@pytest.mark.parametrize(("rows", "size"), [(60, 12), (7, 30)])
def test_scores_that_are_not_centred_are_those_of_the_toolbox(rows: int, size: int) -> None:
    features = _features(rows, size)
    # The Adversarial Robustness Toolbox: SVD of the centred features, norms of the others.
    _, _, vectors = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    expected = np.linalg.norm(vectors[0:1] @ features.T, axis=0)
    found = spectral_scores(torch.tensor(features), centred=False).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("centred", [True, False])
def test_scores_do_not_hang_on_signs_and_centred_ones_not_on_the_origin(centred: bool) -> None:
    features = torch.tensor(_features())
    scores = spectral_scores(features, centred=centred)
    torch.testing.assert_close(spectral_scores(-features, centred=centred), scores)
    moved = spectral_scores(features + 5, centred=centred)
    assert torch.allclose(moved, scores) == centred


def test_each_class_is_scored_by_itself(ctx: TrialContext, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.concatenate([_features(seed=0), 10 * _features(seed=1)])
    order = np.random.default_rng(0).permutation(120)
    _put(features[order], monkeypatch)
    data = _labelled([int(place >= 60) for place in order])
    found = SpectralSignatures().row_scores(data, ctx).numpy()
    expected = np.concatenate([
        spectral_scores(torch.tensor(part)).numpy() for part in (features[:60], features[60:])
    ])  # fmt: skip
    np.testing.assert_allclose(found, expected[order])


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"removal_fraction": 0.0}, (0, 0, 0, 0)),
        ({"removal_fraction": 0.15}, (9, 2, 0, 0)),
        ({"removal_fraction": 0.5}, (30, 5, 2, 0)),
        ({"removal_fraction": 0.9}, (54, 9, 2, 0)),
        ({"expected_rate": 0.1}, (9, 2, 0, 0)),
        ({"expected_rate": 0.0, "removal_fraction": 0.9}, (0, 0, 0, 0)),
        ({"expected_rate": 0.6}, (54, 9, 2, 0)),
    ],
)
def test_the_share_is_removed_from_every_class_and_none_is_emptied(
    settings: dict[str, Any],
    counts: tuple[int, ...],
    ctx: TrialContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = (60, 10, 3, 1)
    data = _labelled([label for label, size in enumerate(sizes) for _ in range(size)])
    _put(_features(len(data)), monkeypatch)
    defense = SpectralSignatures(**settings)
    removed, scores = _removed(defense, data, ctx), defense.row_scores(data, ctx)
    for label, count in enumerate(counts):
        rows = (data.labels == label).nonzero().flatten().tolist()
        gone = [row for row in removed if row in rows]
        assert len(gone) == count
        if gone:
            assert min(scores[gone]) >= max(scores[row] for row in rows if row not in gone)


def test_of_equal_scores_the_first_rows_go(
    ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(np.ones((20, 4)), monkeypatch)
    data = _labelled([0, 1] * 10)
    assert _removed(SpectralSignatures(removal_fraction=0.3), data, ctx) == list(range(6))
    assert SpectralSignatures().row_scores(data, ctx).tolist() == [0.0] * 20


def test_poison_that_stands_out_is_removed_wholly_but_not_by_scores_that_are_not_centred(
    ctx: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From the origin the class' own rows lie far along the direction, and the poison lies near.
    _put(_with_poison(), monkeypatch)
    data, poisoned = _labelled([0] * 100), set(range(90, 100))
    assert poisoned <= set(_removed(SpectralSignatures(), data, ctx))
    assert not poisoned & set(_removed(SpectralSignatures(centred=False), data, ctx))


def test_the_representation_is_the_undefended_model_and_shared_between_fractions(
    tmp_path: Path,
) -> None:
    undefended = context_of(spec_of(), tmp_path)
    plain = undefended.train(Stack(), undefended.pools.train, 0)
    scores: list[Tensor] = []
    keys = set()
    for fraction in (0.1, 0.3):
        defense = SpectralSignatures(removal_fraction=fraction)
        ctx = context_of(spec_of(defense), tmp_path)
        trained = ctx.train(ctx.spec.stack, ctx.pools.train, 0)
        assert ctx.used["representation"] == plain.key
        assert set(ctx.phases) == {plain.key, trained.key}
        scores.append(defense.row_scores(ctx.pools.train, ctx))
        keys.add(trained.key)
        count = len(ctx.pools.train) - len(trained.members)
        assert abs(count - fraction * len(ctx.pools.train)) <= 5
    assert torch.equal(*scores) and len(keys) == 2
