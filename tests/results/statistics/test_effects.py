"""Differences to the undefended trial."""

from pathlib import Path

import pytest

from results.records.run import load
from results.statistics.effects import bounds, defense_effects, undefended
from tests.results.run_folders import declared, fgsm, manifest, record, temperature, write_run


def test_single_defenses_are_set_against_the_undefended_of_their_scenario(tmp_path: Path) -> None:
    strong = {"clean_accuracy": 0.7, "robust_accuracy": 0.8, "membership_auc": 0.6}
    rows = [
        record("a"),
        record("b", [fgsm(0.2)], metrics=strong),
        record("c", [fgsm(0.2)], metrics=strong, seed=1),
        record("d", [temperature(2.0)], training={"epochs": 5}),
        record("e", [fgsm(0.1), temperature(2.0)]),
    ]
    run = load(write_run(tmp_path, manifest(), rows))
    (effect,) = defense_effects(run)
    assert (effect.record.trial, effect.seeds) == ("b", 2)
    verdicts = {change.metric: change.verdict for change in effect.changes}
    assert verdicts == {
        "clean_accuracy": "worse", "robust_accuracy": "better", "membership_auc": "cannot be told",
    }  # fmt: skip
    assert effect.changes[1].difference.value == pytest.approx(0.3)
    assert undefended(run, run.records[3]) == ()


def test_effects_are_ordered_by_the_size_of_their_settings(tmp_path: Path) -> None:
    sizes = [20.0, 5.0, 100.0]
    rows = [record("plain")] + [record(f"t{size:g}", [temperature(size)]) for size in sizes]
    run = load(write_run(tmp_path, manifest(), rows))
    assert [effect.record.trial for effect in defense_effects(run)] == ["t5", "t20", "t100"]


def test_bounds_come_from_the_metrics_unit(tmp_path: Path) -> None:
    gap = {**declared("Gap.", "minimize"), "interval": "interval of a difference of two shares"}
    seconds = {**declared("Time.", "minimize"), "unit": "s"}
    metrics = {"acc": declared("Share.", "maximize"), "gap": gap, "seconds": seconds}
    run = load(write_run(tmp_path, manifest(metrics=metrics), []))
    assert bounds(run, "acc_at_0.0157") == (0.0, 1.0)
    assert bounds(run, "gap") == (-1.0, 1.0)
    assert bounds(run, "seconds") is None
    assert bounds(run, "unheard_of") is None
