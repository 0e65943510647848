"""Which trials are audited: pure choices from losses, and from hand-made runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.audit.candidates import Pick, choose, spread
from results import load
from tests.results.run_folders import fgsm, manifest, record, share, temperature, write_run


def picked(
    losses: list[list[float]], most: int, *, slack: float = 0.0, allowed: list[bool] | None = None
) -> list[int]:
    return [pick.row for pick in picks(losses, most, slack=slack, allowed=allowed)]


def picks(
    losses: list[list[float]], most: int, *, slack: float = 0.0, allowed: list[bool] | None = None
) -> list[Pick]:
    rows = np.array(losses, dtype=np.float64)
    mask = np.ones(len(rows), dtype=bool) if allowed is None else np.array(allowed)
    return spread(rows, rows - slack, mask, most)


LINE = [[0.0, 1.0], [0.1, 0.85], [0.4, 0.4], [0.8, 0.15], [1.0, 0.0]]


def test_the_most_balanced_comes_first_then_the_best_of_each_objective() -> None:
    assert picked(LINE, 3) == [2, 0, 4]


def test_then_comes_what_is_farthest_from_all_that_were_picked() -> None:
    assert picked([*LINE, [0.12, 0.8]], 4) == [2, 0, 4, 3]


def test_no_more_are_picked_than_asked_for_and_none_twice() -> None:
    assert picked(LINE, 1) == [2]
    assert sorted(picked(LINE, 100)) == [0, 1, 2, 3, 4]


def test_what_another_beats_beyond_its_interval_is_never_picked() -> None:
    assert picked([[0.0, 0.0], [0.5, 0.5]], 4) == [0]
    assert picked([[0.0, 0.0], [0.5, 0.5]], 4, slack=0.4) == [0]


def test_what_touches_the_front_fills_up_after_its_members() -> None:
    found = picks([[0.0, 1.0], [0.05, 1.05], [1.0, 0.0]], 3, slack=0.1)
    assert [pick.row for pick in found] == [0, 2, 1]
    assert [pick.on_front for pick in found] == [True, True, False]


def test_of_one_objective_the_best_come_in_their_order() -> None:
    assert picked([[0.3], [0.1], [0.2], [0.9]], 3, slack=0.25) == [1, 2, 0]


def test_the_scale_of_an_objective_changes_nothing() -> None:
    scaled = [[1000 * a, b] for a, b in LINE]
    assert picked(scaled, 4) == picked(LINE, 4)


def test_a_tie_in_one_objective_is_broken_by_the_others() -> None:
    # Rows 0 and 1 are best in the first; the most balanced one is row 2.
    assert picked([[0.0, 0.9, 0.59], [0.0, 0.5, 0.6], [0.2, 0.2, 0.2]], 2)[1] == 1


def test_an_objective_in_which_all_are_equal_divides_by_nothing() -> None:
    assert picked([[0.5, 1.0], [0.5, 0.5]], 4) == [1]
    assert picked([[0.5, 0.5], [0.5, 0.5]], 4) == [0, 1]


def test_what_is_not_allowed_is_not_picked_but_beats_others() -> None:
    assert picked([[0.0, 0.0], [0.5, 0.5]], 4, allowed=[False, True]) == []
    touching = [[0.0, 0.0], [0.05, 0.05]]
    assert picked(touching, 4, slack=0.1, allowed=[False, True]) == [1]


def test_nothing_is_picked_of_nothing() -> None:
    assert spread(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, dtype=bool), 4) == []


def trial(name: str, stack: list[Any], clean: float, robust: float, **changes: Any) -> Any:
    metrics = {
        "clean_accuracy": share(clean),
        "robust_accuracy": share(robust),
        "membership_auc": share(0.5),
    }
    return record(name, stack=stack, metrics=metrics, **changes)


def chosen(folder: Path, records: list[Any], most: int = 4) -> list[tuple[str | None, str]]:
    run = load(write_run(folder, manifest(), records))
    return [(candidate.search_trial, candidate.why) for candidate in choose(run, most)]


def test_the_undefended_model_is_always_audited_and_beside_the_number(tmp_path: Path) -> None:
    records = [
        trial("u", [], 0.98, 0.1),
        trial("a", [fgsm(0.15)], 0.9, 0.6),
        trial("b", [temperature(1.5)], 0.5, 0.05),
    ]
    assert chosen(tmp_path, records, 1) == [("u", "undefended"), ("a", "front")]


def test_an_undefended_model_that_the_search_lacks_is_made(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), [trial("a", [fgsm(0.15)], 0.9, 0.6)]))
    plain, best = choose(run, 4)
    assert (plain.search_trial, plain.why, plain.spec["stack"]) == (None, "undefended", [])
    assert plain.spec["training"] == best.spec["training"] and best.search_trial == "a"


def test_what_is_struck_off_or_failed_is_not_audited(tmp_path: Path) -> None:
    masked = {"masking": {"suspected": True, "strikes": True, "words": "w"}, "adaptive": True}
    records = [
        trial("a", [fgsm(0.15)], 0.9, 0.6),
        trial("m", [temperature(1.5)], 0.99, 0.9, notes={"evasion": masked}),
        trial("f", [temperature(1.5)], 0.99, 0.95, status="failed", error="it broke"),
    ]
    assert [name for name, _ in chosen(tmp_path, records)] == [None, "a"]


@pytest.mark.parametrize(
    ("data", "kept"), [("digits", ["u", "a"]), ("folder:/images", ["u", "a", "c"])]
)
def test_what_answers_by_chance_is_not_audited_though_it_leaks_nothing(
    data: str, kept: list[str], tmp_path: Path
) -> None:
    on = {"spec": {"data": {"name": data}}}
    records = [
        trial("u", [], 0.98, 0.9, **on),
        trial("a", [fgsm(0.15)], 0.9, 0.6, **on),
        trial("c", [temperature(1.5)], 0.11, 0.0, **on),
    ]
    assert [name for name, _ in chosen(tmp_path, records)] == kept


def test_a_constant_answer_to_unbalanced_classes_is_not_audited(tmp_path: Path) -> None:
    name = "folder:/images"
    data = {f"{name} (16x16)": {"fingerprint": "ab12", "images": 562, "classes": 3}}
    records = [
        trial("u", [], 0.98, 0.9, spec={"data": {"name": name}}),
        trial("a", [fgsm(0.15)], 0.9, 0.6, spec={"data": {"name": name}}),
        trial("constant", [temperature(1.5)], 0.893, 0.893, spec={"data": {"name": name}}),
    ]
    for each, balanced in zip(records, (0.95, 0.7, 1 / 3), strict=True):
        each["metrics"]["balanced_accuracy"] = share(balanced)
    for inputs, kept in (({"data": data}, ["u", "a"]), (None, ["u", "a", "constant"])):
        run = load(write_run(tmp_path, manifest(inputs=inputs), records))
        assert {each.search_trial for each in choose(run, 4)} == set(kept)


def test_trials_that_differ_by_their_seed_alone_are_audited_once(tmp_path: Path) -> None:
    records = [trial(f"s{seed}", [fgsm(0.15)], 0.9, 0.6, seed=seed) for seed in range(3)]
    assert [name for name, _ in chosen(tmp_path, records)] == [None, "s0"]


def test_each_data_set_has_candidates_of_its_own(tmp_path: Path) -> None:
    records = [
        trial("a", [fgsm(0.15)], 0.9, 0.6),
        trial("b", [fgsm(0.15)], 0.5, 0.2, spec={"data": {"name": "mnist"}}),
    ]
    assert {name for name, why in chosen(tmp_path, records) if why == "front"} == {"a", "b"}


def test_without_a_completed_trial_there_is_nothing_to_audit(tmp_path: Path) -> None:
    records = [trial("f", [fgsm(0.15)], 0.9, 0.6, status="failed", error="it broke")]
    assert chosen(tmp_path, records) == []
    assert chosen(tmp_path / "plain", [trial("u", [], 0.9, 0.1)]) == []


@pytest.mark.parametrize("most", [1, 2, 5])
def test_at_most_as_many_as_asked_for_are_defended(tmp_path: Path, most: int) -> None:
    records = [trial(f"t{i}", [temperature(1 + i)], 0.5 + i / 20, 0.9 - i / 10) for i in range(6)]
    defended = [name for name, why in chosen(tmp_path, records, most) if why != "undefended"]
    assert len(defended) == most
