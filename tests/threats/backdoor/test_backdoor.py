"""The backdoor threat: its twin, what counts as success, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from results.records.poisoning_notes import poisoning_notes
from tests.defenses.toys import DropClass
from tests.making import EPS, context_of, spec_of, train_in
from trainables.datasets.images import content_hash
from trainables.defenses import Defense, build_defense
from trainables.deployed.predictor import REFUSED, Prediction, Predictor
from trainables.errors import InputError, PredictorError
from trainables.records.value import Measured, MetricValue, Missing
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import build_threat
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.backdoor.poison import Poisoned, Recipe
from trainables.threats.threat import Findings
from trainables.trial.context import TrialContext
from trainables.trial.stages import prepare_trial, run_trial

MEASURED = (
    "backdoor_success_rate", "untriggered_success_rate", "poisoned_clean_accuracy",
)  # fmt: skip


def _defense(name: str, **raw: Any) -> Defense:
    return build_defense(name, raw, radius=EPS)


def _measure(ctx: TrialContext, **settings: Any) -> Findings:
    """Measure the threat on the context's own deployed model."""
    deployed = ctx.deploy(ctx.spec.stack, train_in(ctx))
    return Backdoor(**settings).measure(deployed, ctx)


def _value(found: MetricValue) -> Measured:
    assert isinstance(found, Measured)
    return found


@pytest.mark.parametrize(
    "stack",
    [
        (),
        (_defense("spectral_signatures"),),
        (_defense("temperature", T="fit"),),
        (_defense("ensemble", size=2),),
        (_defense("spectral_signatures"), _defense("ensemble", size=2)),
    ],
    ids=lambda stack: "+".join(defense.name for defense in stack) or "none",
)
def test_what_is_deployed_knows_nothing_of_the_twin(
    stack: tuple[Defense, ...], tmp_path: Path
) -> None:
    ctx = context_of(spec_of(*stack), tmp_path)
    deployed = ctx.deploy(ctx.spec.stack, train_in(ctx))
    used, phases = dict(ctx.used), dict(ctx.phases)
    found = Backdoor().measure(deployed, ctx)
    twin = ctx.log.used.pop("twin")
    assert ctx.used == used and twin not in used.values()
    assert ctx.phases == phases
    assert sorted(found.metrics) == sorted(Backdoor().metric_names())
    assert all(isinstance(value, Measured) for value in found.metrics.values())


def test_a_trial_with_the_threat_deploys_the_weights_of_one_without(tmp_path: Path) -> None:
    threats = [(), (build_threat("backdoor", {}, radius=EPS),)]
    without, with_it = (
        run_trial(spec_of(threats=found), ArtefactStore(tmp_path / str(len(found))))
        for found in threats
    )
    assert without.error is None and with_it.error is None
    assert with_it.notes["training"] == without.notes["training"]
    assert with_it.notes["clean"] == without.notes["clean"]
    assert with_it.artefacts["model"] == without.artefacts["model"]
    assert all(with_it.metrics[name] == value for name, value in without.metrics.items())


def test_trials_that_differ_in_other_threats_or_in_the_deployment_share_the_twin(
    tmp_path: Path,
) -> None:
    backdoor = build_threat("backdoor", {}, radius=EPS)
    evasion = [
        build_threat("evasion", {"attacks": attack, "points": 5}, radius=EPS)
        for attack in ("fgsm", "random_noise")
    ]
    specs = [
        spec_of(threats=[backdoor, evasion[0]]),
        spec_of(threats=[evasion[1], backdoor]),
        spec_of(_defense("temperature", T=2), threats=[backdoor]),
        spec_of(_defense("label_smoothing"), threats=[backdoor]),
        spec_of(threats=[build_threat("backdoor", {"colour": 0.5}, radius=EPS)]),
    ]
    twins = [run_trial(spec, ArtefactStore(tmp_path)).artefacts["twin"] for spec in specs]
    assert twins[0] == twins[1] == twins[2]
    assert len(set(twins)) == 3


def test_every_stack_meets_the_same_poisoned_set_and_every_seed_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    apply = Recipe.apply

    def spy(recipe: Recipe, *arguments: Any) -> Poisoned:
        found = apply(recipe, *arguments)
        seen.append(content_hash(found.data))
        return found

    monkeypatch.setattr(Recipe, "apply", spy)
    stacks = [(), (_defense("label_smoothing"),), (_defense("spectral_signatures"),)]
    for stack in stacks:
        _measure(context_of(spec_of(*stack), tmp_path))
    _measure(context_of(spec_of(seed=1), tmp_path))
    assert len(seen) == 4 and len(set(seen[:3])) == 1 and seen[3] != seen[0]


class SeesThePatch(Predictor):
    """Takes what bears the patch for one class and all else for another."""

    def __init__(self, model: torch.nn.Module, patched: int, other: int) -> None:
        super().__init__(model)
        self.patched, self.other = patched, other

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        """Return the label; a rejection is certain of nothing."""
        bears = (x[:, :, -2:, -2:] == 1).flatten(1).all(1)
        label = torch.full((len(x),), self.other).masked_fill(bears, self.patched)
        return Prediction(label, torch.zeros(len(x), 10).log_softmax(1))


def _deployed_as(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Predictor]) -> None:
    """Let every model be deployed as this predictor."""
    monkeypatch.setattr(TrialContext, "deploy", lambda ctx, stack, model: make(model))


@pytest.mark.parametrize(
    ("patched", "other", "success", "untriggered"),
    [(0, 5, 1.0, 0.0), (5, 0, 0.0, 1.0), (0, 0, 1.0, 1.0), (REFUSED, 5, 0.0, 0.0)],
    ids=["backdoored", "the other way", "constant", "rejecting"],
)
@pytest.mark.parametrize("source", [1, "all"])
def test_success_is_the_target_on_stamped_images_of_the_source(
    patched: int,
    other: int,
    success: float,
    untriggered: float,
    source: int | str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ctx = context_of(spec_of(), tmp_path)
    _deployed_as(monkeypatch, lambda model: SeesThePatch(model, patched, other))
    found = _measure(ctx, source_class=source).metrics
    values = [_value(found[name]) for name in MEASURED]
    labels = ctx.held_out.labels
    victims = int(((labels != 0) if source == "all" else (labels == 1)).sum())
    assert [value.n for value in values] == [victims, victims, len(labels)]
    expected = float((labels == other).double().mean())
    assert [value.value for value in values] == [success, untriggered, pytest.approx(expected)]


class NotANumber(Predictor):
    """Answers NaN."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 10)."""
        return torch.full((len(x), 10), float("nan"))


class Saturated(Predictor):
    """Is wholly sure of class 0."""

    def scores(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (B, 10)."""
        return torch.eye(10)[torch.zeros(len(x), dtype=torch.long)] * 1e30


def test_a_twin_of_nan_fails_by_name_and_a_saturated_one_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context_of(spec_of(), tmp_path)
    _deployed_as(monkeypatch, NotANumber)
    with pytest.raises(PredictorError, match="NotANumber returns NaN"):
        _measure(ctx)
    _deployed_as(monkeypatch, Saturated)
    assert _value(_measure(ctx).metrics["backdoor_success_rate"]).value == 1.0


def test_what_a_filter_removes_is_counted_among_poisoned_and_clean_rows(tmp_path: Path) -> None:
    ctx = context_of(spec_of(DropClass(label=0)), tmp_path)
    found = _measure(ctx, target=0, source_class=1, rate=0.2)
    labels = ctx.pools.train.labels
    target, rows = int((labels == 0).sum()), len(labels)
    poisoned = found.notes["poisoned_rows"]
    assert poisoned == round(0.2 * target)
    shares = [_value(found.metrics[name]) for name in ("poison_recall", "clean_removal_rate")]
    assert [(share.value, share.n) for share in shares] == [
        (1.0, poisoned), (pytest.approx(target / (rows - poisoned)), rows - poisoned),
    ]  # fmt: skip
    assert _value(found.metrics["samples_removed"]).value == target
    assert found.notes["removed_rows"] == target + poisoned
    assert found.notes["share_of_target_class"] == pytest.approx(poisoned / (target + poisoned))


def test_without_a_filter_nothing_is_removed_and_no_row_has_a_score(tmp_path: Path) -> None:
    found = _measure(context_of(spec_of(), tmp_path))
    for name in ("poison_recall", "clean_removal_rate", "samples_removed"):
        assert _value(found.metrics[name]).value == 0.0
    assert found.notes["row_scores"] == {}


def test_the_scores_of_the_target_class_are_noted_clean_and_poisoned_apart(tmp_path: Path) -> None:
    ctx = context_of(spec_of(_defense("spectral_signatures")), tmp_path)
    found = _measure(ctx, rate=0.3)
    ((name, row),) = found.notes["row_scores"].items()
    assert name == "spectral_signatures"
    assert len(row["edges"]) == len(row["clean"]) + 1 == len(row["poisoned"]) + 1
    assert row["edges"] == sorted(row["edges"]) and row["edges"][0] == 0
    assert sum(row["poisoned"]) == found.notes["poisoned_rows"]
    assert sum(row["clean"]) == int((ctx.pools.train.labels == 0).sum())
    json.dumps(found.notes, allow_nan=False)


def test_label_flipping_is_a_backdoor_without_a_trigger(tmp_path: Path) -> None:
    ctx = context_of(spec_of(epochs=8, train_images=None, measured_images=None), tmp_path)
    found = _measure(ctx, trigger="none", rate=0.95).metrics
    success, untriggered, clean = (_value(found[name]) for name in MEASURED)
    assert success == untriggered and success.value >= 0.8
    # The source class is lost, and it alone.
    assert 0.7 <= clean.value <= 0.93


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": 10}, "target is 10, but"),
        ({"source_class": 12}, "source is 12, but"),
        ({"source_class": 0}, "source and target are both 0"),
        ({"size": 9}, "a patch of 9 pixels does not fit images of 8x8"),
    ],
)
def test_what_cannot_be_is_refused_before_a_twin_is_trained(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    plain = spec_of()
    ctx = context_of(plain, tmp_path)
    with pytest.raises(InputError, match=f"backdoor: .*{words}"):
        Backdoor(**settings).measure(Predictor(torch.nn.Identity()), ctx)
    assert not ctx.used and not list(tmp_path.rglob("*.safetensors"))
    spec = replace(plain, threats=(Backdoor(**settings),))
    with pytest.raises(InputError, match=words):
        prepare_trial(spec, ArtefactStore(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate": 0.001}, "asks for 0 poisoned rows"),
        ({"rate": 9.0}, "asks for 180 poisoned rows, but there are 21"),
    ],
)
def test_an_attack_that_the_rows_do_not_allow_is_missing_and_the_rest_is_measured(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    threats = (Backdoor(**settings), build_threat("cost", {}, radius=EPS))
    spec = spec_of(threats=threats)
    assert words in threats[0].foreseen(context_of(spec, tmp_path))
    record = run_trial(spec, ArtefactStore(tmp_path))
    assert record.status == "completed" and "twin" not in record.artefacts
    for name in Backdoor().metric_names():
        found = record.metrics[name]
        assert isinstance(found, Missing) and words in found.reason
    assert record.notes["missing"].keys() == {"backdoor"} and "backdoor" not in record.notes
    assert poisoning_notes(record.notes) is None
    assert isinstance(record.metrics["clean_accuracy"], Measured)
    assert isinstance(record.metrics["training_seconds"], Measured)


def test_a_share_that_eats_the_source_is_capped_and_said(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    source = int((ctx.pools.train.labels == 1).sum())
    target = int((ctx.pools.train.labels == 0).sum())
    threat = Backdoor(rate=(source - 1) / target)
    found = _measure(ctx, rate=(source - 1) / target)
    assert found.notes["poisoned_rows"] == source // 2
    assert f"at most 50 % are poisoned, {source // 2} rows" in found.notes["remarks"][0]
    assert found.notes["remarks"][0] == threat.foreseen(ctx)
    assert Backdoor().foreseen(ctx) == ""


@pytest.mark.parametrize(("other", "said"), [(0, True), (5, False)])
def test_a_success_without_the_trigger_is_said(
    other: int, said: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ctx = context_of(spec_of(), tmp_path)
    _deployed_as(monkeypatch, lambda model: SeesThePatch(model, 0, other))
    remarks = _measure(ctx).notes["remarks"]
    assert [("without the trigger as well" in words) for words in remarks] == [True] * said


@pytest.mark.parametrize(
    ("source", "label", "words"),
    [(1, 2, "no image of class 1"), ("all", 0, "no image of another class")],
)
def test_a_pool_without_an_image_to_stamp_is_refused(
    source: int | str, label: int, words: str, tmp_path: Path
) -> None:
    ctx = context_of(spec_of(), tmp_path)
    left = ctx.held_out.select((ctx.held_out.labels == label).nonzero().flatten())
    ctx = replace(ctx, pools=replace(ctx.pools, validation=left))
    with pytest.raises(InputError, match=words):
        _measure(ctx, source_class=source)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), [(1, 0), (4, 2)])
def test_spectral_signatures_halve_the_success_on_the_digits(
    source: int, target: int, artefact_folder: Path
) -> None:
    found = {}
    for stack in ((), (_defense("spectral_signatures"),)):
        spec = spec_of(*stack, epochs=15, train_images=None, measured_images=None)
        found[len(stack)] = _measure(
            context_of(spec, artefact_folder), source_class=source, target=target
        ).metrics
    before, after = (_value(found[count]["backdoor_success_rate"]).value for count in (0, 1))
    assert before >= 0.7 and after <= before / 2
    assert _value(found[1]["poison_recall"]).value >= 0.8
