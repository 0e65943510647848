from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.defenses import toys
from tests.making import EPS, context_of, same_weights, spec_of
from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.defenses import Stack, build_defense
from trainables.deployed.predictor import Predictor
from trainables.threats import build_threat
from trainables.trial import context
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec


def test_a_pools_hash_is_of_its_pixels_labels_and_scale() -> None:
    pixels = torch.arange(2 * 4, dtype=torch.uint8).view(2, 1, 2, 2)
    images = LabelledImages(pixels=pixels, labels=torch.tensor([0, 1]), scale=255)
    same = LabelledImages(pixels=pixels.clone(), labels=torch.tensor([0, 1]), scale=255)
    assert content_hash(images) == content_hash(same)
    others = [
        replace(images, pixels=pixels.flip(0)),
        replace(images, labels=torch.tensor([1, 1])),
        replace(images, scale=16),
        replace(images, pixels=pixels.view(2, 2, 2, 1)),
    ]
    assert len({content_hash(row) for row in [images, *others]}) == 5


def test_the_points_of_an_attack_are_fixed_stratified_and_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context_of(spec_of(measured_images=None), tmp_path)
    assert ctx.points() is ctx.held_out
    monkeypatch.setattr(context, "SCREEN_POINTS", 50)
    first, second = ctx.points(), ctx.points()
    assert torch.equal(first.pixels, second.pixels) and len(first) == 50
    counts = torch.bincount(first.labels, minlength=10)
    assert int(counts.max() - counts.min()) <= 2


def test_a_screen_measures_validation_and_an_audit_and_published_pools_test(
    tmp_path: Path,
) -> None:
    screen = context_of(spec_of(), tmp_path)
    assert screen.held_out is screen.pools.validation is screen.curve_pool
    audit = context_of(replace(spec_of(), effort="audit"), tmp_path)
    assert audit.held_out is audit.pools.test
    assert audit.curve_pool is audit.pools.validation
    published = context_of(spec_of(pools="published"), tmp_path)
    assert published.held_out is published.curve_pool is published.pools.test


def test_the_model_of_a_screen_serves_the_audit(tmp_path: Path) -> None:
    spec = spec_of()
    keys = set()
    for effort in (spec, replace(spec, effort="audit")):
        ctx = context_of(effort, tmp_path)
        keys.add(ctx.train(Stack(), ctx.pools.train, 0).key)
    assert len(keys) == 1


def test_each_purpose_has_a_seed_of_its_own_that_the_threats_do_not_change(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    threats = [build_threat(name, {}, radius=EPS) for name in ("cost", "membership")]
    watched = context_of(spec_of(threats=threats), tmp_path)
    other = context_of(spec_of(seed=1), tmp_path)
    draw = [
        torch.rand(4, generator=found.generator(*purpose)).tolist()
        for found, purpose in (
            (ctx, ("a",)), (watched, ("a",)), (ctx, ("a",)), (ctx, ("b",)), (ctx, ("a", "0")),
            (other, ("a",)),
        )
    ]  # fmt: skip
    assert draw[0] == draw[1] == draw[2]
    assert len({tuple(row) for row in draw[2:]}) == 4


def test_a_part_of_the_training_changes_the_model_and_a_part_of_the_deployment_does_not(
    tmp_path: Path,
) -> None:
    def key(spec: TrialSpec) -> str:
        ctx = context_of(spec, tmp_path)
        return ctx.train(spec.stack, ctx.pools.train, spec.seed).key

    plain, smoothing = key(spec_of()), "randomized_smoothing"
    smoothed = key(spec_of(build_defense(smoothing, {}, radius=EPS)))
    deployed_otherwise = {"n0": 7, "n": 50, "alpha": 0.05, "draws": 6}
    assert smoothed == key(spec_of(build_defense(smoothing, deployed_otherwise, radius=EPS)))
    assert plain == key(spec_of(build_defense("temperature", {"T": "fit"}, radius=EPS)))
    assert plain == key(spec_of(build_defense("temperature", {"T": 7}, radius=EPS)))
    assert plain == key(spec_of(toys.RejectUnsure()))
    others = [
        spec_of(seed=1),
        spec_of(train_images=190),
        spec_of(build_defense("label_smoothing", {}, radius=EPS)),
        spec_of(build_defense("label_smoothing", {"alpha": 0.2}, radius=EPS)),
        spec_of(model=ModelSpec(norm="batch")),
        spec_of(training=TrainingSpec(epochs=1, activation="tanh")),
    ]
    others.append(spec_of(build_defense(smoothing, {"sigma": 0.3}, radius=EPS)))
    assert len({plain, smoothed, *(key(spec) for spec in others)}) == 2 + len(others)


def test_other_rows_and_another_seed_are_another_model(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    rows = ctx.pools.train
    found = [
        ctx.train(Stack(), rows, 0),
        ctx.train(Stack(), rows, 1),
        ctx.train(Stack(), rows.select(torch.arange(100)), 0),
        ctx.train(Stack(), rows, 0),
    ]
    assert len({row.key for row in found}) == len({row.weights_sha256 for row in found}) == 3
    assert same_weights(found[0].model, found[3].model)
    assert len(found[2].members) == 100


def test_a_model_from_the_store_is_the_one_that_was_trained(tmp_path: Path) -> None:
    spec = spec_of(model=ModelSpec(norm="batch"))
    first, second = (context_of(spec, tmp_path) for _ in range(2))
    built = first.train(Stack(), first.pools.train, 0)
    stored = second.train(Stack(), second.pools.train, 0)
    assert same_weights(built.model, stored.model)
    assert built.curves == stored.curves and built.seconds == stored.seconds
    assert built.key == stored.key == second.used["model"]
    assert built.weights_sha256 == stored.weights_sha256
    assert not stored.model.training
    x = first.held_out.images()
    assert torch.equal(built.model(x), stored.model(x))


def test_scores_and_log_probabilities_agree_and_need_no_gradient(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    predictor = Predictor(ctx.train(Stack(), ctx.pools.train, 0).model)
    scores = ctx.scores(predictor, ctx.held_out)
    assert scores.shape == (60, 10) and not scores.requires_grad
    found = ctx.log_probabilities(predictor, ctx.held_out)
    torch.testing.assert_close(found, scores.log_softmax(1))


def test_a_trial_without_numbers_given_takes_all_images(tmp_path: Path) -> None:
    spec = TrialSpec(data=DataSpec(), model=ModelSpec(), training=TrainingSpec())
    pools = context_of(spec, tmp_path).pools
    assert len(pools.train) == 897 and pools.validation is not None
    assert len(pools.validation) == 270
