"""Shadow models: the design, what they are trained and deployed as, and what trials share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.defenses import toys
from tests.making import EPS, context_of, spec_of
from trainables.datasets.images import content_hash
from trainables.defenses import Defense, Stack, build_defense
from trainables.defenses.defense import DefenseContext
from trainables.deployed.predictor import Predictor
from trainables.errors import PredictorError
from trainables.threats.membership.membership import Membership
from trainables.threats.membership.shadows import (
    ShadowAnswers,
    halves,
    population,
    shadow_answers,
    shadow_seed,
    shares,
)
from trainables.trial.context import TrialContext
from trainables.trial.settings import Effort


class Nothing(Predictor):
    """Answers NaN."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return NaN (B, 10)."""
        return torch.full((len(x), 10), torch.nan)


@dataclass(frozen=True, kw_only=True)
class AnswerNaN(Defense):
    """Deploy a predictor that answers NaN."""

    name = f"{__name__}:AnswerNaN"
    slot = "deployment"

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Return the broken predictor."""
        return Nothing(predictor.model)


def _context(folder: Path, *stack: Defense, seed: int = 0) -> TrialContext:
    return context_of(spec_of(*stack, train_images=80, measured_images=40, seed=seed), folder)


def _ask(ctx: TrialContext, shadows: int = 2) -> ShadowAnswers:
    points = population(ctx)
    return shadow_answers(ctx, points, torch.arange(0, len(points), 5), shadows)


def _models(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("model-*.safetensors")}


def _answers(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("shadow_answers-*.safetensors")}


@pytest.mark.parametrize("shadows", [2, 16])
def test_every_point_is_in_exactly_half_of_the_shadow_models(shadows: int) -> None:
    labels = torch.arange(203) % 7
    inside = halves(labels, shadows, seed=3)
    assert inside.shape == (shadows, 203)
    assert bool((inside.sum(0) == shadows // 2).all())
    assert int(inside.sum(1).max() - inside.sum(1).min()) <= 1
    for label in range(7):
        of_class = inside[:, labels == label].sum(1)
        assert int(of_class.max() - of_class.min()) <= 1
    # More models change nothing about the first ones; another seed draws others.
    assert torch.equal(inside, halves(labels, shadows + 2, seed=3)[:shadows])
    assert not torch.equal(inside, halves(labels, shadows, seed=4))
    assert len({row.numpy().tobytes() for row in inside}) == shadows


@pytest.mark.parametrize(
    ("rows", "shadows"), [(120, 4), (170, 8), (165, 6), (40, 8), (21, 16), (101, 2), (101, 4)]
)
def test_every_shadow_is_given_as_many_rows_as_the_attacked_model(rows: int, shadows: int) -> None:
    labels = torch.cat([torch.arange(201) % 7, torch.tensor([7])])  # one class has one row
    inside = shares(labels, rows, shadows, seed=3)
    assert inside.shape == (shadows, 202)
    assert inside.sum(1).tolist() == [rows] * shadows
    # Every point is in as many models as any other, and in and out of one at least.
    times = inside.sum(0)
    assert int(times.max() - times.min()) <= 1
    assert 1 <= int(times.min()) <= int(times.max()) < shadows
    for label in range(7):
        expected = rows * int((labels == label).sum()) / 202
        assert inside[:, labels == label].sum(1).float().sub(expected).abs().max() <= 2
    assert torch.equal(inside, shares(labels, rows, shadows, seed=3))
    assert not torch.equal(inside, shares(labels, rows, shadows, seed=4))
    assert len({row.numpy().tobytes() for row in inside}) == shadows


def test_too_few_shadows_are_given_the_nearest_number_that_leaves_every_point_out_once() -> None:
    labels = torch.arange(200) % 10
    assert torch.equal(shares(labels, 180, 2, seed=0), halves(labels, 2, seed=0))
    assert torch.equal(shares(labels, 100, 6, seed=0), halves(labels, 6, seed=0))
    assert shares(labels, 180, 4, seed=0).sum(1).tolist() == [150] * 4
    assert shares(labels, 20, 4, seed=0).sum(1).tolist() == [50] * 4


def test_shadows_of_a_whole_pool_train_on_as_many_rows_as_the_attacked_model(
    tmp_path: Path,
) -> None:
    # All of the digits: the pools besides the training pool hold fewer rows than it does.
    ctx = context_of(spec_of(train_images=None, measured_images=None), tmp_path)
    rows, points = len(ctx.pools.train), population(ctx)
    assert len(points) < 2 * rows
    found = shadow_answers(ctx, points, torch.arange(0, len(points), 40), 4)
    assert found.rows == rows
    assert found.inside.sum(0).min() >= 1 and (~found.inside).sum(0).min() >= 1


@pytest.mark.parametrize("shadows", [0, 3])
def test_shadow_models_come_in_pairs(shadows: int) -> None:
    with pytest.raises(ValueError, match="in pairs"):
        halves(torch.arange(10), shadows, seed=0)


@pytest.mark.parametrize(
    ("effort", "train_images"), [("screen", 80), ("audit", 80), ("audit", 300)]
)
def test_the_population_holds_no_pool_that_is_fitted_or_yet_to_be_audited(
    effort: Effort, train_images: int, tmp_path: Path
) -> None:
    spec = spec_of(train_images=train_images, measured_images=40)
    ctx = context_of(replace(spec, effort=effort), tmp_path)
    pools = ctx.pools
    assert pools.validation and pools.auxiliary
    audit = effort == "audit"
    held_out = pools.test if audit else pools.validation
    points = population(ctx)
    assert torch.equal(points.pixels[:train_images], pools.train.pixels)
    assert torch.equal(points.pixels[train_images : train_images + 40], held_out.pixels)
    further = _texts(points.pixels[train_images + 40 :])
    spare = _texts(pools.auxiliary.pixels) | (_texts(pools.validation.pixels) if audit else set())
    assert further <= spare
    # A half is as large as the training pool, where there are as many rows.
    assert len(points) == min(2 * train_images, train_images + 40 + len(spare))


def test_published_pools_have_nothing_to_spare(tmp_path: Path) -> None:
    ctx = context_of(spec_of(pools="published"), tmp_path)
    joined = torch.cat([ctx.pools.train.pixels, ctx.pools.test.pixels])
    assert torch.equal(population(ctx).pixels, joined)


def _texts(pixels: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in pixels}


def test_the_attacked_model_is_none_of_the_shadows_and_costs_nothing_more(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    target = ctx.train(Stack(), ctx.pools.train, 0)
    phases, before = dict(ctx.phases), _models(tmp_path)
    assert before == {f"{target.key}.safetensors"}
    found = _ask(ctx, shadows=4)
    assert len(_models(tmp_path) - before) == 4
    assert ctx.phases == phases and ctx.used["model"] == target.key
    points = population(ctx)
    inside = torch.from_numpy(shadow_answers(ctx, points, torch.arange(len(points)), 4).inside)
    assert (found.inside == inside[:, ::5].numpy()).all()
    for number in range(4):
        rows = points.select(inside[number].nonzero().flatten())
        assert content_hash(rows) != content_hash(ctx.pools.train)
        assert shadow_seed(ctx, number) != ctx.spec.seed
        twin = ctx.twin(train=rows, seed=shadow_seed(ctx, number))
        shadow = twin.train(Stack(), rows, shadow_seed(ctx, number))
        assert shadow.weights_sha256 != target.weights_sha256
        asked = points.select(torch.arange(0, len(points), 5))
        expected = twin.log_probabilities(twin.deploy(Stack(), shadow.model), asked)
        assert (found.log_probabilities[number] == expected.double().numpy()).all()
    assert len(_models(tmp_path)) == 5  # those asked for again here were in the store
    assert abs(found.rows - len(points) / 2) <= 1


def test_shadows_are_deployed_as_the_attacked_model_is(tmp_path: Path) -> None:
    plain = _ask(_context(tmp_path))
    trained = _models(tmp_path)
    tempered = _ask(_context(tmp_path, build_defense("temperature", {"T": 3}, radius=EPS)))
    assert _models(tmp_path) == trained  # a temperature trains nothing
    expected = plain.log_probabilities / 3
    expected -= np.log(np.exp(expected).sum(-1, keepdims=True))
    assert tempered.log_probabilities == pytest.approx(expected, abs=1e-5)
    assert (tempered.inside == plain.inside).all()


@pytest.mark.parametrize(
    ("stack", "models"),
    [
        ([("label_smoothing", {"alpha": 0.3})], 2),
        ([("ensemble", {"size": 2})], 4),
        ([("label_smoothing", {"alpha": 0.3}), ("ensemble", {"size": 2})], 4),
    ],
    ids=["smoothed", "ensemble", "both"],
)
def test_shadows_are_trained_as_the_attacked_model_is(
    stack: Sequence[tuple[str, dict[str, float]]], models: int, tmp_path: Path
) -> None:
    defenses = [build_defense(name, raw, radius=EPS) for name, raw in stack]
    found = _ask(_context(tmp_path, *defenses))
    assert len(_models(tmp_path)) == models
    plain = _ask(_context(tmp_path))
    assert (found.inside == plain.inside).all()  # all stacks meet the same halves
    assert not np.allclose(found.log_probabilities, plain.log_probabilities)


def test_a_filter_of_the_stack_filters_the_shadows_rows(tmp_path: Path) -> None:
    spec = spec_of(toys.DropClass(label=3), epochs=10, train_images=80, measured_images=40)
    found = _ask(context_of(spec, tmp_path))
    # Never shown class 3, they give it less than any other.
    assert found.log_probabilities.mean((0, 1)).argmin() == 3
    assert found.log_probabilities[:, :, 3].max() < -1


def test_trials_that_differ_in_the_attacks_alone_share_their_shadows(tmp_path: Path) -> None:
    ctx = _context(tmp_path)
    predictor = ctx.deploy(Stack(), ctx.train(Stack(), ctx.pools.train, 0).model)
    Membership(attacks=("rmia",), shadows=2).measure(predictor, ctx)
    models, answers = _models(tmp_path), _answers(tmp_path)
    assert len(models) == 3 and len(answers) == 2
    again = _context(tmp_path)
    Membership(attacks=("lira_online", "shadow"), shadows=2).measure(predictor, again)
    assert (_models(tmp_path), _answers(tmp_path)) == (models, answers)
    assert {again.used["shadow_answers0"], again.used["shadow_answers1"]} == {
        name.removesuffix(".safetensors") for name in answers
    }
    Membership(attacks=("rmia",), shadows=4).measure(predictor, ctx)
    assert len(_models(tmp_path)) == 5 and _answers(tmp_path) > answers
    Membership(attacks=("rmia",), shadows=2, points=20).measure(predictor, ctx)
    assert len(_models(tmp_path)) == 5  # fewer points are asked of the same models
    other = _context(tmp_path, seed=1)
    Membership(attacks=("rmia",), shadows=2).measure(predictor, other)
    assert len(_models(tmp_path)) == 5 + 3


def test_a_shadow_that_answers_nan_is_a_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match="NaN"):
        _ask(_context(tmp_path, AnswerNaN()))
