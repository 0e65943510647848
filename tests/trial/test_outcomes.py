"""What an audit says point by point is what its metrics say in all."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.making import CPU, EPS, spec_of
from trainables.defenses import build_defense
from trainables.records.record import TrialRecord
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.threats.evasion.evasion import Evasion
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial

QUICK = Evasion(extent="headline", points=12)


def ran(spec: TrialSpec, folder: Path) -> TrialRecord:
    record = run_trial(spec, ArtefactStore(folder), device=CPU)
    assert record.status == "completed", record.error
    return record


def audited(spec: TrialSpec) -> TrialSpec:
    return replace(spec, effort="audit")


def check(record: TrialRecord, metric: str) -> str:
    value, marks = record.metrics[metric], record.notes["outcomes"][metric]
    assert isinstance(value, Measured)
    assert len(marks) == value.n and set(marks) <= {"0", "1"}
    assert marks.count("1") / len(marks) == pytest.approx(value.value, abs=0)
    return str(marks)


SPEC = audited(spec_of(threats=[QUICK], epochs=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefacts of this module's audit."""
    return tmp_path_factory.mktemp("artefacts")


@pytest.fixture(scope="module")
def record(folder: Path) -> TrialRecord:
    """An audit of the undefended model on twelve points."""
    return ran(SPEC, folder)


def test_an_audits_outcomes_add_up_to_its_metrics(record: TrialRecord) -> None:
    clean, robust = (check(record, name) for name in ("clean_accuracy", "robust_accuracy"))
    assert record.notes["outcomes"]["points"] == len(clean) > len(robust) == 12
    broken_by = record.notes["evasion"]["broken_by"]
    assert [name == "none" for name in broken_by] == [mark == "1" for mark in robust]


def test_outcomes_come_back_from_the_store_and_from_json(record: TrialRecord, folder: Path) -> None:
    again = ran(SPEC, folder)  # its evaluation is taken from the store
    assert again.timings["evasion"] < record.timings["evasion"] / 5
    assert again.notes["outcomes"] == record.notes["outcomes"]
    assert TrialRecord.from_json(record.to_json()).notes["outcomes"] == record.notes["outcomes"]


def test_a_model_that_rejects_is_marked_by_what_it_accepts(tmp_path: Path) -> None:
    stack = [build_defense("feature_squeezing", {}, radius=EPS)]
    check(ran(audited(spec_of(*stack, epochs=3)), tmp_path), "clean_accuracy")


def test_a_screen_keeps_no_outcomes(tmp_path: Path) -> None:
    record = ran(spec_of(), tmp_path)
    assert "outcomes" not in record.notes


def test_the_headline_of_an_audit_has_autoattack_and_neither_curve_nor_l2(
    record: TrialRecord,
) -> None:
    assert record.notes["evasion"]["extent"] == "headline"
    assert "adversarial_accuracy_autoattack" in record.metrics
    absent = ("robust_accuracy_l2", "robust_accuracy_unbounded", "adversarial_accuracy_square")
    assert not set(absent) & set(record.metrics)
    assert set(QUICK.metric_names()) <= set(record.metrics)
    assert record.notes["evasion"]["adaptive"] is True
    assert record.notes["evasion"]["masking"]["strikes"] is False
