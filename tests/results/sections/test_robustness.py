"""Robustness over the radius, who broke which points, and who is shown."""

from pathlib import Path

import pytest

from results.records.run import load
from results.sections.robustness import (
    broken_by,
    rejecting,
    robustness_curve,
    robustness_info,
    shown_trials,
)
from results.statistics.fronts import Front, fronts
from tests.results.run_folders import (
    Json,
    attacked_records,
    curve_scores,
    evasion_notes,
    fgsm,
    manifest,
    record,
    write_run,
)


def overall(folder: Path, rows: list[Json]) -> Front:
    """Return the front over all objectives of a run of these records."""
    return fronts(load(write_run(folder, manifest(), rows)))[0]


def curved(trial: str, robust: float, *, unbounded: float = 0.0, eps: float = 0.0) -> Json:
    """Return a record with a curve, on the front with others of another robust accuracy."""
    scores = {"clean_accuracy": 0.96 - 0.3 * robust, "robust_accuracy": robust,
              "membership_auc": 0.6}  # fmt: skip
    scores |= curve_scores(scores["clean_accuracy"], robust, unbounded)
    return record(trial, [fgsm(eps)] if eps else [], metrics=scores)


def test_a_curve_goes_from_clean_accuracy_through_the_standard_radius(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), [curved("a", 0.5), record("old")]))
    curve = robustness_curve(run.records[0])
    assert curve is not None
    assert [multiple for multiple, _ in curve.points] == [0, 0.5, 1, 1.5, 2, 4]
    values = [value.value for _, value in curve.points]
    assert values[0] == pytest.approx(0.81)
    assert values[2] == 0.5
    assert values == sorted(values, reverse=True)
    assert curve.unbounded is not None and curve.unbounded.value == 0
    assert robustness_curve(run.records[1]) is None


def test_at_most_six_members_are_shown_both_ends_among_them(tmp_path: Path) -> None:
    rows = [curved(f"t{step:02d}", 0.2 + 0.05 * step, eps=0.01 * step) for step in range(1, 12)]
    front = overall(tmp_path, [curved("plain", 0.1), *rows])
    assert len(front.members) == 12
    trials = [single.trial for single in shown_trials(front)]
    assert trials[:2] == ["plain", "t01"] and trials[-1] == "t11"
    assert len(trials) == 7
    info = robustness_info(front, 0.15)
    assert info is not None
    assert (len(info.curves), info.members) == (7, 11)
    assert "the undefended trial and of 6 of 11 defended trials on the front over" in info.alt()


def test_the_caption_says_where_the_unbounded_ball_is_withstood(tmp_path: Path) -> None:
    front = overall(tmp_path / "all", [curved("a", 0.1), curved("b", 0.5, eps=0.1)])
    info = robustness_info(front, None)
    assert info is not None
    assert "every image (not drawn) it must reach 0, and it does." in info.alt()
    assert "n = 270 (clean accuracy: 270)" in info.alt()
    unknown = curved("c", 0.6, eps=0.3)
    del unknown["metrics"]["robust_accuracy_unbounded"]
    rows = [curved("a", 0.1), curved("b", 0.5, unbounded=0.03, eps=0.1), unknown]
    info = robustness_info(overall(tmp_path / "some", rows), None)
    assert info is not None
    words = "It does not for fgsm_adversarial_training(eps=0.1, fraction=0.5) (trial b): 0.030 ["
    assert words in info.alt()
    assert info.alt().endswith("It was not measured for 1 trial.")


def test_points_are_counted_by_the_attack_that_broke_them_first(tmp_path: Path) -> None:
    names = ["clean", "none", "pgd", "pgd", "fgsm", "pgd", "none"]
    rows = [
        record("a", notes=evasion_notes(broken_by=names)),
        record("b", [fgsm(0.1)], metrics={"clean_accuracy": 0.8, "robust_accuracy": 0.7,
                                          "membership_auc": 0.6}),
    ]  # fmt: skip
    found = broken_by(overall(tmp_path, rows))
    assert found is not None
    assert found.attacks == ("pgd", "fgsm")
    (row,) = found.rows
    assert [found.count(row, name) for name in found.attacks] == [3, 1]
    assert (found.points(row), found.unattacked(row), found.withstood(row)) == (7, 1, 2)


def test_trials_without_notes_have_neither_curves_nor_counts(tmp_path: Path) -> None:
    front = overall(tmp_path, [record("a")])
    assert robustness_info(front, 0.15) is None
    assert broken_by(front) is None


def test_only_models_that_reject_are_listed_as_such(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), attacked_records()))
    (found,) = rejecting(run)
    auroc = found.value("detection_auroc")
    assert auroc is not None and auroc.value == 0.91
