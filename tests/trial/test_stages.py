import importlib.metadata
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.datasets.making import write_images
from tests.defenses import toys
from tests.making import CPU, EPS, spec_of
from trainables.defenses import build_defense
from trainables.errors import InputError, StorageError
from trainables.metrics.perceptual import WEIGHTS_NAME
from trainables.records.record import TrialRecord, write_record
from trainables.records.value import Measured, MetricValue, Missing
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import THREATS, Findings, build_threat
from trainables.threats.clean import METRIC_NAMES
from trainables.training import loop
from trainables.trial.settings import DataSpec, ModelSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial, stage_versions

TIMES = {"training_seconds", *(name for name in THREATS["cost"]().metric_names() if "_ms_" in name)}


@pytest.fixture(autouse=True)
def no_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let torchvision's downloads lie in an empty folder."""
    home = tmp_path_factory.mktemp("torch_home")
    monkeypatch.setenv("TORCH_HOME", str(home))
    return home


def _spec(*threats: str, seed: int = 0, effort: str = "screen") -> TrialSpec:
    spec = spec_of(
        build_defense("label_smoothing", {}, radius=EPS),
        build_defense("temperature", {"T": "fit"}, radius=EPS),
        threats=[build_threat(name, {}, radius=EPS) for name in threats],
        epochs=2,
        seed=seed,
    )
    return replace(spec, effort=effort)  # type: ignore[arg-type]


def _run(spec: TrialSpec, folder: Path) -> TrialRecord:
    record = run_trial(spec, ArtefactStore(folder), device=CPU)
    assert record.status == "completed", record.error
    return record


def _repeating(record: TrialRecord) -> dict[str, MetricValue]:
    return {name: value for name, value in record.metrics.items() if name not in TIMES}


def _repeating_notes(record: TrialRecord) -> dict[str, Any]:
    """Return the notes but for those of a threat that times: how often it did is a matter of
    time.
    """
    timing = {name for name, threat in THREATS.items() if not threat.repeatable}
    return {name: notes for name, notes in record.notes.items() if name not in timing}


def test_a_trial_repeats_in_another_store_but_for_its_times(tmp_path: Path) -> None:
    first, second = (_run(_spec(*THREATS), tmp_path / name) for name in ("a", "b"))
    assert _repeating(first) == _repeating(second)
    assert first.curves == second.curves
    assert _repeating_notes(first) == _repeating_notes(second)
    assert first.artefacts == second.artefacts and first.trial == second.trial
    assert _repeating(first) != _repeating(_run(_spec(*THREATS, seed=1), tmp_path / "a"))


def test_a_cache_hit_changes_nothing_but_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _run(_spec(*THREATS), tmp_path)

    def refuse(*arguments: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "train", refuse)
    again = _run(_spec(*THREATS), tmp_path)
    assert _repeating(again) == _repeating(first)
    assert again.metrics["training_seconds"] == first.metrics["training_seconds"]
    assert again.curves == first.curves and _repeating_notes(again) == _repeating_notes(first)
    assert again.artefacts == first.artefacts


def test_what_a_threat_finds_does_not_hang_on_which_others_are_asked_for(tmp_path: Path) -> None:
    everything = _run(_spec("evasion", "membership"), tmp_path / "a")
    for order in (("membership",), ("membership", "evasion"), ()):
        other = _run(_spec(*order), tmp_path / "b")
        assert other.metrics == {name: everything.metrics[name] for name in other.metrics}
        assert other.trial != everything.trial
    assert set(_run(_spec(), tmp_path / "b").metrics) == set(METRIC_NAMES)


def test_a_new_temperature_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spec(T: float | str) -> TrialSpec:
        return spec_of(build_defense("temperature", {"T": T}, radius=EPS))

    first = _run(spec(1.5), tmp_path)
    monkeypatch.setattr(loop, "train", None)  # would fail
    for T in (3.0, "fit"):
        record = _run(spec(T), tmp_path)
        assert record.artefacts["model"] == first.artefacts["model"]
        assert record.metrics["clean_accuracy"] == first.metrics["clean_accuracy"]
        assert record.metrics["nll"] != first.metrics["nll"]


def test_the_record_says_what_was_done(tmp_path: Path) -> None:
    spec = _spec(*THREATS)
    sampled = {"labels": "label_smoothing"}
    record = run_trial(spec, ArtefactStore(tmp_path), sampled=sampled, device=CPU)
    assert record.trial == spec.trial and record.spec == spec.canonical()
    assert record.sampled == sampled and record.error is None
    listed = {name for threat in spec.threats for name in threat.metric_names()}
    assert set(record.metrics) == listed | set(METRIC_NAMES)
    assert set(record.timings) == {"data", "training", "deployment", "clean", *THREATS}
    evaluations = {f"evaluation_{name}" for name, threat in THREATS.items() if threat.repeatable}
    assert {"model", "twin", *evaluations} <= set(record.artefacts)
    assert set(record.notes) == {"training", "clean", *THREATS}
    assert record.stage_versions == stage_versions()
    assert record.versions["torch"] == importlib.metadata.version("torch")
    assert record.hardware["device"] == "cpu"
    assert record.started <= record.finished
    for key in record.artefacts.values():
        assert (tmp_path / f"{key}.safetensors").is_file()


def test_a_record_of_every_threat_comes_back_from_its_file(tmp_path: Path) -> None:
    record = _run(_spec(*THREATS), tmp_path)
    text = (tmp_path / write_record(record, tmp_path)).read_text()
    assert TrialRecord.from_json(text) == record
    assert "NaN" not in text and "Infinity" not in text
    rows = json.loads(text)["metrics"]
    assert rows["lpips_pgd"]["value"] is None and WEIGHTS_NAME in rows["lpips_pgd"]["reason"]
    assert rows["tpr_at_fpr_0_01"].keys() == {"value", "reason"}


def test_weights_that_turn_up_later_are_used(tmp_path: Path, no_weights: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    before = _run(_spec("evasion"), tmp_path)
    assert isinstance(before.metrics["lpips_pgd"], Missing)
    (no_weights / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(
        models.alexnet(weights=None).state_dict(), no_weights / "hub/checkpoints" / WEIGHTS_NAME
    )
    after = _run(_spec("evasion"), tmp_path)
    assert isinstance(after.metrics["lpips_pgd"], Measured)
    assert after.artefacts["model"] == before.artefacts["model"]


def test_an_audit_trains_nothing_again_and_measures_other_points(tmp_path: Path) -> None:
    screen, audit = (_run(_spec("membership", effort=e), tmp_path) for e in ("screen", "audit"))
    assert screen.artefacts["model"] == audit.artefacts["model"]
    assert screen.artefacts["evaluation_membership"] != audit.artefacts["evaluation_membership"]


def test_a_failure_is_recorded_in_one_line(tmp_path: Path) -> None:
    record = run_trial(spec_of(toys.Breaks()), ArtefactStore(tmp_path), device=CPU)
    assert record.status == "failed"
    assert record.error == "RuntimeError: first line second line"
    assert record.metrics == {} and record.artefacts == {} and record.curves == {}
    assert record.timings["training"] > 0
    assert TrialRecord.from_json(record.to_json()) == record
    assert list(tmp_path.glob("*.safetensors")) == []


def test_a_threat_that_fails_leaves_what_was_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(THREATS["membership"], "measure", fail)
    record = run_trial(_spec("evasion", "membership"), ArtefactStore(tmp_path), device=CPU)
    assert (record.status, record.error) == ("failed", "RuntimeError: no more")
    assert isinstance(record.metrics["robust_accuracy"], Measured)
    assert "membership_auc" not in record.metrics and record.curves


def test_a_threat_that_the_rows_do_not_allow_is_missing_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise InputError("membership: no such row")

    expected = _run(_spec("evasion"), tmp_path / "a")
    monkeypatch.setattr(THREATS["membership"], "measure", refuse)
    record = _run(_spec("membership", "evasion"), tmp_path / "b")
    missing = {name: Missing("membership: no such row") for name in membership_names()}
    assert record.metrics == expected.metrics | missing
    assert record.notes["missing"] == {"membership": "membership: no such row"}
    assert "membership" not in record.notes and "membership" in record.timings
    assert TrialRecord.from_json(record.to_json()) == record
    assert "missing" not in expected.notes


def membership_names() -> tuple[str, ...]:
    """List what a membership threat measures."""
    return THREATS["membership"]().metric_names()


def test_storage_that_cannot_be_used_is_not_a_threats_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(THREATS["membership"], "measure", refuse)
    with pytest.raises(StorageError, match="full"):
        run_trial(_spec("membership"), ArtefactStore(tmp_path), device=CPU)


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        (lambda: Findings(metrics={"x": Measured(math.nan, 0, 1, 9)}), "a metric must be finite"),
        (lambda: Findings(metrics={}, notes={"x": [math.inf]}), "the notes of {} hold a number"),
    ],
)
@pytest.mark.parametrize("name", ["membership", "cost"])  # the latter is never taken from the store
def test_a_threat_that_gives_nan_fails_the_trial_and_no_record_holds_it(
    name: str,
    findings: Callable[[], Findings],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(THREATS[name], "measure", lambda *arguments: findings())
    record = run_trial(_spec(name), ArtefactStore(tmp_path), device=CPU)
    assert record.status == "failed" and record.error is not None
    assert record.error.startswith("ValueError: " + message.format(name))
    assert isinstance(record.metrics["clean_accuracy"], Measured)
    assert TrialRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_of(model=ModelSpec(name="no_such_module:build")), "no_such_module"),
        (spec_of(toys.ScaleFeatures(point="nowhere")), "nowhere"),
        (spec_of(build_defense("early_stopping", {}, radius=EPS), pools="published"),
         "early_stopping uses the calibration pool"),
    ],
)  # fmt: skip
def test_what_the_user_must_mend_passes_through(
    spec: TrialSpec, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run_trial(spec, ArtefactStore(tmp_path), device=CPU)


class Drawing(nn.Module):
    """Adds noise of torch's global generator to its features, also in eval mode."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K)."""
        features = x.flatten(1)
        logits: torch.Tensor = self.last(features + torch.randn_like(features))
        return logits


def drawing(
    *, channels: int, height: int, width: int, num_classes: int, **statistics: object
) -> nn.Module:
    """Build a network that is random in eval mode."""
    return Drawing(channels * height * width, num_classes)


def test_a_network_that_draws_in_eval_mode_repeats_and_it_is_said(tmp_path: Path) -> None:
    temperature = build_defense("temperature", {"T": "fit"}, radius=EPS)
    model = ModelSpec(name=f"{__name__}:drawing")

    def record(*threats: str, seed: int, folder: str) -> TrialRecord:
        torch.manual_seed(seed)  # what a worker did before
        built = [build_threat(name, {}, radius=EPS) for name in threats]
        return _run(spec_of(temperature, threats=built, model=model), tmp_path / folder)

    first = record("evasion", "membership", seed=1, folder="a")
    anew = record("evasion", "membership", seed=2, folder="b")
    assert first.metrics == anew.metrics and first.notes == anew.notes
    other = record("membership", "detection", seed=3, folder="b")  # with its training found
    shared = other.metrics.keys() & first.metrics.keys()
    assert len(shared) > len(METRIC_NAMES)
    assert all(other.metrics[name] == first.metrics[name] for name in shared)
    assert first.notes["model"] == ["its answers are random in eval mode: each stage is seeded"]
    assert first.notes["evasion"]["undeclared_randomness"]


class Gamma(nn.Module):
    """Sees display values: the slope of the curve is infinite at black."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K)."""
        logits: torch.Tensor = self.last(x.flatten(1) ** (1 / 2.2))
        return logits


def gamma(
    *, channels: int, height: int, width: int, num_classes: int, **statistics: object
) -> nn.Module:
    """Build a network whose gradients are infinite."""
    return Gamma(channels * height * width, num_classes)


def test_a_network_of_infinite_gradients_is_measured(tmp_path: Path) -> None:
    threats = [build_threat("evasion", {}, radius=EPS)]
    spec = spec_of(threats=threats, model=ModelSpec(name=f"{__name__}:gamma"), epochs=3)
    record = _run(spec, tmp_path)
    norm = record.metrics["input_gradient_norm"]
    assert isinstance(norm, Missing) and "not finite" in norm.reason
    robust, noise = (
        record.metrics[name] for name in ("robust_accuracy", "adversarial_accuracy_random_noise")
    )
    assert isinstance(robust, Measured) and isinstance(noise, Measured)
    assert robust.value <= noise.value
    counted = record.notes["evasion"]["not_finite_gradients"]
    assert counted["pgd"]["not_finite"] > 0 and counted["deepfool"]["not_finite"] > 0


def test_a_network_that_draws_nothing_has_no_remark_and_the_callers_draws_stay(
    tmp_path: Path,
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert "model" not in _run(_spec("membership"), tmp_path).notes
    assert torch.equal(torch.rand(3), expected)


def test_published_pools_are_measured_on_test(tmp_path: Path) -> None:
    record = _run(spec_of(pools="published", measured_images=50), tmp_path)
    accuracy = record.metrics["clean_accuracy"]
    assert isinstance(accuracy, Measured) and accuracy.n == 50


def test_what_was_done_to_a_folders_images_stands_in_the_record(tmp_path: Path) -> None:
    for name in ("ant", "cat"):
        write_images(tmp_path / "photos" / name, 12, size=(12, 8))
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("not an image")
    data = DataSpec(name=f"folder:{tmp_path / 'photos'}", image_size=8)
    spec = replace(spec_of(epochs=1), data=data, model=ModelSpec())
    assert _run(spec, tmp_path / "store").notes["data"] == [
        "passed over 1 file without an image (.txt)",
        "kept the centre of 24 non-square images at 8x8",
    ]
