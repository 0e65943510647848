"""Fronts and hypervolumes against closed forms, and who is left out of a run's fronts."""

from pathlib import Path

import numpy as np
import pytest

from results.page.content import gather
from results.page.report_json import plain
from results.records.run import load
from results.sections.findings import findings
from results.statistics.fronts import (
    draws_of,
    front,
    front_membership,
    fronts,
    hypervolume,
    hypervolume_history,
    membership,
    to_losses,
)
from tests.results.run_folders import OBJECTIVES, evasion_notes, fgsm, manifest, record, write_run


def test_signs_are_flipped_where_more_is_better() -> None:
    losses = to_losses(np.array([[0.9, 0.2]]), [True, False])
    assert losses.tolist() == [[-0.9, 0.2]]


def test_front_of_a_staircase_leaves_out_the_dominated() -> None:
    losses = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0], [2.0, 2.0], [3.0, 3.0]])
    assert front(losses).tolist() == [True, True, True, False, False]


def test_ties_stay_and_weakly_dominated_points_go() -> None:
    losses = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    assert front(losses).tolist() == [True, True, False]


def test_front_agrees_with_the_definition_in_four_dimensions() -> None:
    losses = np.random.default_rng(0).integers(0, 4, (80, 4)).astype(float)
    no_worse = np.all(losses[:, None] <= losses[None], axis=-1)
    better = np.any(losses[:, None] < losses[None], axis=-1)
    assert np.array_equal(front(losses), ~np.any(no_worse & better, axis=0))


def test_front_of_nothing_is_empty() -> None:
    assert front(np.empty((0, 2))).shape == (0,)
    assert hypervolume(np.empty((0, 2)), np.ones(2)) == 0.0


def test_nan_raises_and_says_how_many() -> None:
    losses = np.array([[0.0, np.nan], [1.0, 1.0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="2 of 3 trials"):
        front(losses)
    with pytest.raises(ValueError, match="2 of 3 trials"):
        hypervolume(losses, np.ones(2))


@pytest.mark.parametrize("endless", [np.nan, np.inf, -np.inf])
def test_losses_without_end_are_refused(endless: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 trials"):
        front(np.array([[0.0, 1.0, 2.0], [1.0, endless, 0.0]]))


def test_hypervolume_is_the_area_under_the_staircase() -> None:
    losses = np.array([[0.25, 0.5], [0.5, 0.25], [0.6, 0.6]])
    assert hypervolume(losses, np.ones(2)) == pytest.approx(0.75 * 0.5 + 0.5 * 0.25)


def test_hypervolume_beyond_the_reference_is_nothing() -> None:
    assert hypervolume(np.array([[2.0, 0.0]]), np.ones(2)) == 0.0


def test_history_never_falls_and_ends_at_the_hypervolume() -> None:
    losses = np.random.default_rng(1).random((50, 3))
    history = hypervolume_history(losses, np.ones(3))
    assert np.all(np.diff(history) >= 0)
    assert history[0] == pytest.approx(np.prod(1 - losses[0]))
    assert history[-1] == pytest.approx(hypervolume(losses, np.ones(3)))


def test_membership_is_sure_where_intervals_are_points_and_half_for_twins() -> None:
    losses = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert front_membership(losses, losses, losses).tolist() == [1.0, 0.0]
    twins = np.zeros((2, 1))
    shares = front_membership(twins, twins - 1, twins + 1)
    assert shares == pytest.approx([0.5, 0.5], abs=0.08)


def test_fronts_of_a_run_count_whom_they_leave_out(tmp_path: Path) -> None:
    good = {"clean_accuracy": 0.9, "robust_accuracy": 0.4, "membership_auc": 0.6}
    lacking = {k: v for k, v in good.items() if k != "membership_auc"}
    missing = {**lacking, "membership_auc": {"value": None, "reason": "no shadow data"}}
    rows = [
        record("a", metrics=good),
        record("b", [fgsm(0.1)], metrics={**good, "robust_accuracy": 0.6, "clean_accuracy": 0.8}),
        record("c", [fgsm(0.2)], metrics={**good, "robust_accuracy": 0.3, "clean_accuracy": 0.8}),
        record("d", metrics=missing),
        record("e", status="failed", metrics={}, error="boom"),
        record("f", status="stopped"),
        record("g", stage_versions={"training": 0}),
    ]
    folder = write_run(tmp_path / "run", manifest(), rows)
    (folder / "records" / "h.json").write_text("{")
    overall, robust, private = fronts(load(folder))
    assert (overall.key, robust.key, private.key) == ("all", "robust_accuracy", "membership_auc")
    assert [member.trial for member in overall.members] == ["a", "b"]
    assert overall.left_out == {
        "membership_auc missing": 1, "failed": 1, "stopped": 1, "stale": 1,
        "record cannot be read": 1,
    }  # fmt: skip
    assert [member.trial for member in robust.members] == ["a", "b", "d"]
    assert overall.hypervolume == pytest.approx(0.4 * (0.9 * 0.4 + 0.8 * 0.2))
    assert overall.reference == (0.0, 0.0, 1.0)
    assert set(membership(overall)) == {"a", "b", "c"}


def test_a_struck_off_trial_is_on_no_front_and_moves_no_hypervolume(tmp_path: Path) -> None:
    perfect = {"clean_accuracy": 0.99, "robust_accuracy": 0.99, "membership_auc": 0.5}
    blind = evasion_notes(adaptive=False, not_adaptive_because=["no gradient"])
    rows = [
        record("a", notes=evasion_notes()),
        record("b", [fgsm(0.1)], metrics=perfect, notes=evasion_notes("noise wins")),
        record("c", [fgsm(0.2)], metrics=perfect, notes=blind),
        record("d", [fgsm(0.3)], metrics={**perfect, "masking_suspected": 1.0}),
    ]
    found = fronts(load(write_run(tmp_path / "struck", manifest(), rows)))
    alone = fronts(load(write_run(tmp_path / "alone", manifest(), rows[:1])))
    for front_, expected in zip(found, alone, strict=True):
        assert [member.trial for member in front_.members] == ["a"]
        assert [record_.trial for record_ in front_.struck_off] == ["b", "c", "d"]
        assert front_.left_out == {"struck off": 3}
        assert front_.hypervolume == expected.hypervolume
        assert set(membership(front_)) == {"a"}


def test_different_data_sets_are_never_on_one_front(tmp_path: Path) -> None:
    other = {"data": {"name": "mnist"}}
    folder = write_run(tmp_path, manifest(), [record("a"), record("b", spec=other)])
    keys = [front_.key for front_ in fronts(load(folder)) if front_.overall]
    assert keys == ["all_digits_screen", "all_mnist_screen"]


def test_an_objective_without_a_worst_value_gives_no_hypervolume(tmp_path: Path) -> None:
    objectives = [*OBJECTIVES[:2], {"metric": "nll", "direction": "minimize", "worst": None}]
    rows = [record("a", metrics={"clean_accuracy": 0.9, "robust_accuracy": 0.5, "nll": 0.4})]
    overall = fronts(load(write_run(tmp_path, manifest(objectives=objectives), rows)))[0]
    assert overall.hypervolume is None
    assert overall.reference is None
    assert len(overall.members) == 1


def test_many_trials_are_drawn_less_often_but_never_too_seldom() -> None:
    assert [draws_of(trials) for trials in (0, 1, 2500, 5000, 10_000, 10**6)] == [
        400, 400, 400, 200, 100, 100,
    ]  # fmt: skip


def test_the_reference_of_a_hypervolume_is_told_in_words_and_in_the_report(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), [record("a")]))
    sentence = next(words for words in findings(run, fronts(run)) if "hypervolume" in words)
    assert "clean_accuracy 0, robust_accuracy 0, membership_auc 1" in sentence
    overall = plain(gather(run))["fronts"][0]
    assert overall["hypervolume_reference"] == [0.0, 0.0, 1.0]
    assert overall["hypervolume"] == pytest.approx(0.9 * 0.5 * 0.4)
