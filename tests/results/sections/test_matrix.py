"""The matrix of side effects: which threats it has, whom it compares, and what it disbelieves."""

import json
from pathlib import Path

import pytest

from results import load
from results.audit.audit import audited
from results.sections.matrix import matrix, plain_matrix
from results.statistics.effects import STRUCK_OFF
from results.statistics.paired import compare
from tests.results.audits import write_demo_audit
from tests.results.run_folders import fgsm, manifest, record, write_run


def test_a_column_stands_for_every_threat_that_was_measured(tmp_path: Path) -> None:
    run = load(write_demo_audit(tmp_path))
    found = matrix(run, audited(run))
    assert found is not None
    named = [(column.threat, column.objective.metric) for column in found.columns]
    assert named == [
        ("clean images", "clean_accuracy"), ("evasion", "robust_accuracy"),
        ("backdoor", "backdoor_success_rate"), ("membership", "membership_auc"),
    ]  # fmt: skip
    maximized = [column.objective.maximized for column in found.columns]
    assert maximized == [True, True, False, False]


def test_an_audited_row_is_held_against_the_audited_undefended_model_on_the_same_points(
    tmp_path: Path,
) -> None:
    run = load(write_demo_audit(tmp_path))
    candidates = audited(run)
    found = matrix(run, candidates)
    assert found is not None
    assert [row.audited.trial for row in found.audited] == [
        "mild0000", "smooth00", "strong00", "masked00", "partial0",
    ]  # fmt: skip
    plain = next(each for each in candidates if each.undefended)
    for row in found.audited:
        for metric in ("robust_accuracy", "membership_auc"):
            paired = compare(row.audited, plain, metric)
            assert paired is not None and paired.paired == (metric == "robust_accuracy")
            assert row.changes[metric].difference == paired.difference


def test_no_gain_of_a_masked_candidate_is_called_one(tmp_path: Path) -> None:
    run = load(write_demo_audit(tmp_path))
    found = matrix(run, audited(run))
    assert found is not None
    rows = {row.audited.trial: row.changes["robust_accuracy"].verdict for row in found.audited}
    assert rows["masked00"] == STRUCK_OFF
    assert rows["strong00"] == "better"


def test_defenses_alone_are_compared_by_the_figures_of_the_search(tmp_path: Path) -> None:
    rows = [record("a"), record("b", [fgsm(0.1)], metrics={"clean_accuracy": 0.6})]
    run = load(write_run(tmp_path, manifest(), rows))
    found = matrix(run, ())
    assert found is not None
    assert [column.objective.metric for column in found.columns] == ["clean_accuracy"]
    [(effect, changes)] = found.singles
    assert effect.record.trial == "b"
    assert changes["clean_accuracy"].difference.value == pytest.approx(-0.3)
    assert changes["clean_accuracy"].verdict == "worse"


def test_without_an_undefended_model_there_is_no_matrix(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), [record("b", [fgsm(0.1)])]))
    assert matrix(run, ()) is None
    assert plain_matrix(None) is None


def test_its_json_has_every_difference_with_its_interval(tmp_path: Path) -> None:
    run = load(write_demo_audit(tmp_path))
    plain = json.loads(json.dumps(plain_matrix(matrix(run, audited(run)))))
    change = plain["audited"][0]["changes"]["clean_accuracy"]
    assert change["low"] < change["difference"] < change["high"]
    assert plain["audited"][3]["verdict"] == "masking suspected"
    assert {row["trial"] for row in plain["alone"]} == {
        "mild0000",
        "strong00",
        "masked00",
        "partial0",
    }
