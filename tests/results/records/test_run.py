"""Reading runs: what is refused, and what is counted and named."""

import json
from pathlib import Path

import pytest

import results
from results.errors import ResultsError
from results.records.record import stack_label
from results.records.run import load
from tests.results.run_folders import (
    evasion_notes,
    fgsm,
    manifest,
    record,
    share,
    temperature,
    write_run,
)


def test_records_come_in_order_of_finishing_with_their_values(tmp_path: Path) -> None:
    rows = [
        record("a", finished="2026-01-01T10:02:00+00:00"),
        record("b", [fgsm(0.0314)], finished="2026-01-01T10:01:00+00:00"),
    ]
    run = results.load(write_run(tmp_path, manifest(), rows))
    assert [single.trial for single in run.records] == ["b", "a"]
    value = run.records[1].value("clean_accuracy")
    assert value is not None
    assert (value.value, value.n) == (0.9, 270)


def test_a_missing_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such folder") as caught:
        load(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no manifest"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ResultsError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"run": "x"}')
    with pytest.raises(ResultsError, match="lacks trials, space, objectives, metrics"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(format=9)))
    with pytest.raises(ResultsError, match="format 9"):
        load(tmp_path)


def test_records_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), [record("good")])
    bad = folder / "records"
    (bad / "cut.json").write_text('{"trial": "cut"')
    (bad / "list.json").write_text("[]")
    (bad / "moved.json").write_text(json.dumps(record("other")))
    (bad / "nan.json").write_text(json.dumps(record("nan", timings={"training": float("nan")})))
    (bad / "odd.json").write_text(json.dumps(record("odd", status="dreaming")))
    (bad / "spec.json").write_text(json.dumps({"trial": "spec", "status": "completed"}))
    (bad / "seedless.json").write_text(
        json.dumps({"trial": "seedless", "status": "completed", "spec": {"stack": []}})
    )
    (bad / ".temporary.json").write_text("{")
    run = load(folder)
    assert [single.trial for single in run.records] == ["good"]
    reasons = dict(run.corrupt)
    names = ("cut", "list", "moved", "nan", "odd", "seedless", "spec")
    assert set(reasons) == {f"{name}.json" for name in names}
    assert reasons["seedless.json"] == "its spec lacks data, model, training, effort, seed"
    assert reasons["spec.json"] == "lacks 'spec'"
    assert reasons["nan.json"] == "NaN is not a number"
    assert reasons["moved.json"] == "is the record of trial other"


def test_a_record_of_another_stage_version_is_stale(tmp_path: Path) -> None:
    rows = [
        record("old", stage_versions={"training": 1, "evasion": 1}),
        record("part", stage_versions={"training": 1}),
    ]
    old, part = load(write_run(tmp_path, manifest(), rows)).records
    assert (old.stale, old.usable, old.stale_stages) == (True, False, ("evasion",))
    assert (part.stale, part.usable) == (False, True)


def test_a_record_without_notes_is_neither_masked_nor_adaptive_nor_struck_off(
    tmp_path: Path,
) -> None:
    bare = record("bare")
    del bare["notes"]
    rows = [bare, record("empty"), record("older", notes={"evasion": {"points": 270}})]
    run = load(write_run(tmp_path, manifest(), rows))
    assert not run.corrupt
    for single in run.records:
        assert (single.masking, single.evasion.adaptive, single.why_struck_off) == ("", None, "")
        assert (single.evasion.surfaces, single.not_comparable) == ((), "")
    assert run.eligible == run.usable and not run.struck_off


def test_who_is_struck_off_is_read_from_the_notes_or_from_the_metric(tmp_path: Path) -> None:
    blind = evasion_notes(adaptive=False, not_adaptive_because=["no gradient", "no margin"])
    flagged = {"clean_accuracy": 0.9, "masking_suspected": 1.0}
    rows = [
        record("a", notes=evasion_notes()),
        record("b", notes=evasion_notes("noise wins")),
        record("c", notes=blind),
        record("d", metrics=flagged),
        record("e", metrics={**flagged, "masking_suspected": 0.0}),
        record("f", notes=evasion_notes("noise wins"), status="stopped"),
    ]
    run = load(write_run(tmp_path, manifest(), rows))
    assert {single.trial: single.why_struck_off for single in run.struck_off} == {
        "b": "masking suspected: noise wins",
        "c": "not attacked adaptively: no gradient; no margin",
        "d": "masking suspected: the record does not say which sign",
    }
    assert [single.trial for single in run.eligible] == ["a", "e"]


def test_random_and_rejecting_models_are_not_comparable_with_robustbench(tmp_path: Path) -> None:
    aware = [{"kind": "exact", "draws": 1, "detector_aware": True}]
    drawn = [{"kind": "eot", "draws": 8, "detector_aware": False}] * 2
    rows = [
        record("a", notes=evasion_notes()),
        record("b", notes=evasion_notes(surfaces=aware)),
        record("c", notes=evasion_notes(surfaces=drawn, stochastic=True)),
        record("d", notes=evasion_notes(undeclared_randomness=True, rejects=True)),
        record("e", metrics={"clean_rejection_rate": share(0.05)}),
        record("f", metrics={"clean_rejection_rate": 0.0}),
    ]
    found = load(write_run(tmp_path, manifest(), rows)).records
    assert [single.not_comparable for single in found] == [
        "", "rejects", "stochastic", "random without saying so, rejects", "rejects", "",
    ]  # fmt: skip
    assert found[1].evasion.surfaces == ("exact, detector-aware",)
    assert found[2].evasion.surfaces == ("eot, 8 draws",)


def test_notes_of_another_shape_make_a_record_unreadable(tmp_path: Path) -> None:
    rows = [
        record("text", notes=evasion_notes(adaptive="no")),
        record("list", notes={"evasion": []}),
        record("rows", notes={"evasion": [1]}),
        record("names", notes=evasion_notes(broken_by=[["pgd"]])),
    ]
    run = load(write_run(tmp_path, manifest(), rows))
    assert [single.trial for single in run.records] == ["list"]
    reasons = dict(run.corrupt)
    assert set(reasons) == {"text.json", "rows.json", "names.json"}
    assert reasons["text.json"] == "its notes say adaptive is 'no', which is neither true nor false"


def test_labels_are_compact() -> None:
    assert stack_label([]) == "none"
    label = stack_label(
        [{"name": "pgd", "eps": 8 / 255, "steps": 7, "x": None}, temperature("fit")]
    )
    assert label == "pgd(eps=0.03137, steps=7) + temperature(T=fit)"
    assert stack_label([fgsm([0.0157, 0.0314])]).startswith(
        "fgsm_adversarial_training(eps=0.0157+0.0314, fraction=0.5)"
    )
