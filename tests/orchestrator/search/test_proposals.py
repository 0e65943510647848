from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.search.proposals import Ended, Proposal, Proposals, whole_grid
from orchestrator.search.samplers import Succeeding
from orchestrator.search.sized import Sized
from search_spaces import Space, load_space
from tests.search_spaces.writing import write_space
from trainables.errors import InputError
from trainables.records.record import TrialRecord
from trainables.records.value import Measured, Missing

FINITE = {"label_smoothing": {"alpha": [0.1, 0.2]}, "temperature": {"T": [1.5, 2]}}


def record_of(proposal: Proposal, *, accuracy: float | None = 0.5) -> TrialRecord:
    """Make the record that a trial would have left; no accuracy: it failed."""
    failed = accuracy is None
    value = Measured(accuracy or 0.0, 0.0, 1.0, 10)
    return TrialRecord(
        trial=proposal.spec.trial,
        spec=proposal.spec.canonical(),
        sampled=proposal.flat,
        status="failed" if failed else "completed",
        error="planted" if failed else None,
        metrics={} if failed else {"clean_accuracy": value, "generalization_gap": value},
    )


def run_all(proposals: Proposals, most: int = 1000) -> list[TrialRecord]:
    """Run trials one after the other until the proposals end."""
    records = []
    for _ in range(most):
        proposal = proposals.next()
        if isinstance(proposal, Ended):
            break
        records.append(record_of(proposal))
        proposals.finish(records[-1])
    return records


def told(proposals: Proposals) -> set[str]:
    """List the distinct trials that the study knows as completed."""
    trials = proposals.study.get_trials(deepcopy=False)
    return {t.user_attrs["trial"] for t in trials if t.state == TrialState.COMPLETE}


def inner(proposals: Proposals) -> optuna.samplers.BaseSampler:
    """Return the sampler that the study's own asks."""
    sampler = proposals.study.sampler
    assert isinstance(sampler, Sized)
    return sampler.inner


def states(proposals: Proposals) -> list[TrialState]:
    return [trial.state for trial in proposals.study.get_trials(deepcopy=False)]


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return load_space(str(write_space(tmp_path)))


def make(
    space: Space, folder: Path, records: list[TrialRecord] | None = None, **changes: Any
) -> Proposals:
    known = {record.trial: record for record in records or []}
    return Proposals(space, folder / "journal", known, **{"trials": 6, **changes})


def test_the_asked_number_of_distinct_trials_is_proposed(space: Space, tmp_path: Path) -> None:
    records = run_all(make(space, tmp_path))
    assert len({record.trial for record in records}) == 6


def test_running_trials_count_towards_the_budget(space: Space, tmp_path: Path) -> None:
    proposals = make(space, tmp_path, trials=2)
    assert isinstance(proposals.next(), Proposal)
    assert isinstance(proposals.next(), Proposal)
    assert isinstance(proposals.next(), Ended)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "effects", "nsga2", "nsga3"])
def test_every_sampler_proposes(algorithm: str, tmp_path: Path) -> None:
    path = write_space(tmp_path, search={"algorithm": algorithm, "trials": 6})
    assert len(run_all(make(load_space(str(path)), tmp_path))) == 6


@pytest.mark.parametrize("algorithm", ["random", "tpe", "effects"])
def test_a_small_space_ends_with_each_spec_once(algorithm: str, tmp_path: Path) -> None:
    path = write_space(tmp_path, defenses=FINITE, search={"algorithm": algorithm, "trials": 50})
    proposals = make(load_space(str(path)), tmp_path, trials=50)
    records = run_all(proposals)
    assert len(records) == len({record.trial for record in records}) == 9
    assert proposals.ended == Ended("the space has no other trial")


def test_a_grid_runs_all_combinations(tmp_path: Path) -> None:
    path = write_space(tmp_path, defenses=FINITE, search={"algorithm": "grid"})
    records = run_all(make(load_space(str(path)), tmp_path, trials=None))
    assert len({record.trial for record in records}) == 9


def test_a_grid_that_was_enumerated_before_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load_space(str(write_space(tmp_path, defenses=FINITE, search={"algorithm": "grid"})))
    grid = whole_grid(space)
    monkeypatch.setattr("orchestrator.search.proposals.MOST_IN_A_GRID", 8)
    with pytest.raises(InputError, match="search: the grid has more than 8 points"):
        whole_grid(space)
    proposals = Proposals(space, tmp_path / "journal", {}, trials=None, grid=grid)
    assert proposals.trials == len(grid) == 9
    assert {record.trial for record in run_all(proposals)} == set(grid)


def test_a_space_that_cannot_be_enumerated_ends_after_proposals_in_a_row_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.search.proposals.MOST_ENUMERATED", 2)
    path = write_space(tmp_path, defenses=FINITE)
    proposals = make(load_space(str(path)), tmp_path, trials=50)
    run_all(proposals)
    assert proposals.ended == Ended("20 proposals in a row were trials done before")


def test_what_the_space_names_first_is_run_first(tmp_path: Path) -> None:
    first = [{}, {"temperature": {"T": 2}}, {"label_smoothing": {"alpha": 0.2}}]
    space = load_space(str(write_space(tmp_path, first=first)))
    records = run_all(make(space, tmp_path))
    stacks = [[row["name"] for row in record.spec["stack"]] for record in records[:3]]
    assert stacks == [[], ["temperature"], ["label_smoothing"]]


def test_a_resumed_search_proposes_nothing_twice_and_leaves_nothing_running(
    space: Space, tmp_path: Path
) -> None:
    killed = make(space, tmp_path)
    done = []
    for _ in range(2):
        proposal = killed.next()
        assert isinstance(proposal, Proposal)
        done.append(record_of(proposal))
        killed.finish(done[-1])
    killed.next()  # two are in flight when the driver dies
    killed.next()
    assert states(killed).count(TrialState.RUNNING) == 2
    resumed = make(space, tmp_path, done)
    later = run_all(resumed)
    assert len(later) == 4
    assert not {record.trial for record in later} & {record.trial for record in done}
    assert TrialState.RUNNING not in states(resumed)
    assert len(told(resumed)) == 6


def test_a_worker_that_outlived_its_driver_is_counted(space: Space, tmp_path: Path) -> None:
    killed = make(space, tmp_path)
    proposal = killed.next()
    assert isinstance(proposal, Proposal)
    resumed = make(space, tmp_path, [record_of(proposal)])
    assert len(run_all(resumed)) == 5
    assert len(told(resumed)) == 6


def test_a_lost_journal_is_rebuilt_from_the_records(space: Space, tmp_path: Path) -> None:
    records = run_all(make(space, tmp_path))
    (tmp_path / "journal").unlink()
    rebuilt = make(space, tmp_path, records).study
    by_trial = {record.trial: record.sampled for record in records}
    for trial in rebuilt.get_trials():
        assert trial.params == by_trial.pop(trial.user_attrs["trial"])
        assert trial.values == [0.5, 0.5]
    assert not by_trial


def test_an_unreadable_journal_is_set_aside(space: Space, tmp_path: Path) -> None:
    records = run_all(make(space, tmp_path))
    (tmp_path / "journal").write_bytes(b'{"op_code": "nonsense"}\n[[[\n')
    resumed = make(space, tmp_path, records, trials=7)
    assert len(run_all(resumed)) == 1
    assert list(tmp_path.glob("journal.unreadable-*"))


def test_a_line_that_a_driver_had_no_time_to_end_is_cut_off(space: Space, tmp_path: Path) -> None:
    records = run_all(make(space, tmp_path))
    whole = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(whole + b'{"op_code":5,"worker')
    resumed = make(space, tmp_path, records, trials=9)
    assert (tmp_path / "journal").read_bytes().startswith(whole + b'{"op_code":0')
    assert len(run_all(resumed)) == 3
    assert len(told(make(space, tmp_path, records, trials=9))) == 9
    assert not list(tmp_path.glob("journal.unreadable-*"))


@pytest.mark.parametrize("line", [b"7\n7\n", b"[]\n[]\n", b'{"op_code": 6}\n{"op_code": 6}\n'])
def test_a_journal_with_lines_of_another_kind_is_set_aside(
    line: bytes, space: Space, tmp_path: Path
) -> None:
    records = run_all(make(space, tmp_path))
    with (tmp_path / "journal").open("ab") as file:
        file.write(line)
    assert len(told(make(space, tmp_path, records))) == 6
    assert list(tmp_path.glob("journal.unreadable-*"))


def test_tpe_hands_over_to_nsga2_when_many_have_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.search.samplers.MOST_FOR_TPE", 8)
    space = load_space(str(write_space(tmp_path, search={"algorithm": "tpe", "trials": 30})))
    proposals = make(space, tmp_path, trials=8)
    records = run_all(proposals)
    assert isinstance(inner(proposals), optuna.samplers.TPESampler)
    more = make(space, tmp_path, records, trials=30)
    assert isinstance(inner(more), Succeeding)
    assert len(records + run_all(more)) == 30
    assert len(told(more)) == 30


def test_the_first_parents_after_a_hand_over_are_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.search.samplers.MOST_FOR_TPE", 80)
    space = load_space(str(write_space(tmp_path, search={"algorithm": "tpe", "trials": 81})))
    proposals = make(space, tmp_path, trials=81)
    for place in range(80):
        proposal = proposals.next()
        assert isinstance(proposal, Proposal)
        found = record_of(proposal, accuracy=place / 100)
        gap = Measured(1 - place / 100, 0.0, 1.0, 10)
        proposals.finish(replace(found, metrics=found.metrics | {"generalization_gap": gap}))
    proposals.next()
    sampler = inner(proposals)
    assert isinstance(sampler, Succeeding)
    parents = sampler.get_parent_population(proposals.study, 0)
    assert len(parents) == 50
    worst = min(parent.values[0] for parent in parents)
    assert worst == pytest.approx(0.30)  # the best 50 of 0.00 to 0.79


def test_what_is_held_of_a_finished_trial_has_no_curves_notes_or_other_metrics(
    space: Space, tmp_path: Path
) -> None:
    proposals = make(space, tmp_path)
    proposal = proposals.next()
    assert isinstance(proposal, Proposal)
    full = record_of(proposal)
    struck = {"masking": {"strikes": True}, "broken_by": ["pgd"] * 1000}
    full = replace(
        full,
        curves={"train_loss": [1.0]},
        notes={"evasion": struck, "training": {}},
        metrics=full.metrics | {"ece": Measured(0.0, 0.0, 1.0, 10)},
    )
    proposals.finish(full)
    held = proposals.finished[full.trial]
    assert held.is_struck_off and not held.curves
    assert held.notes == {"evasion": {"masking": {"strikes": True}}}
    assert set(held.metrics) == {"clean_accuracy", "generalization_gap"}


def test_a_completed_trial_without_a_number_for_an_objective_is_told_as_failed(
    space: Space, tmp_path: Path
) -> None:
    proposals = make(space, tmp_path, trials=2)
    proposal = proposals.next()
    assert isinstance(proposal, Proposal)
    full = record_of(proposal)
    lacking = full.metrics | {"clean_accuracy": Missing("every answer was NaN")}
    proposals.finish(replace(full, metrics=lacking))
    assert states(proposals) == [TrialState.FAIL]
    assert len(run_all(proposals)) == 1


def test_a_failed_trial_is_told_so_counts_and_is_not_run_again(
    space: Space, tmp_path: Path
) -> None:
    proposals = make(space, tmp_path, trials=2)
    proposal = proposals.next()
    assert isinstance(proposal, Proposal)
    failed = record_of(proposal, accuracy=None)
    proposals.finish(failed)
    assert states(proposals) == [TrialState.FAIL]
    records = run_all(make(space, tmp_path, [failed], trials=2))
    assert len(records) == 1 and records[0].trial != failed.trial


def test_a_proposal_equal_to_a_finished_spec_is_told_its_values(tmp_path: Path) -> None:
    path = write_space(tmp_path, defenses=FINITE)
    proposals = make(load_space(str(path)), tmp_path, trials=9)
    records = run_all(proposals)
    completed = [t for t in proposals.study.get_trials() if t.state == TrialState.COMPLETE]
    assert len(records) == 9
    assert len(completed) > 9  # random search repeats itself
    assert all(trial.values == [0.5, 0.5] for trial in completed)


def test_constraints_are_told(tmp_path: Path) -> None:
    path = write_space(tmp_path, constraints=["clean_accuracy >= 0.9"])
    proposals = make(load_space(str(path)), tmp_path, trials=1)
    run_all(proposals)
    assert proposals.study.best_trials == []  # 0.5 breaks the bound
    trial = proposals.study.get_trials()[0]
    assert trial.constraints == {"constraint0": pytest.approx(0.4)}


def test_a_spent_time_budget_ends_the_search(space: Space, tmp_path: Path) -> None:
    proposals = make(space, tmp_path, deadline=0.0)
    assert proposals.next() == Ended("the time budget is spent", spent=True)


def test_closing_fails_what_still_runs(space: Space, tmp_path: Path) -> None:
    proposals = make(space, tmp_path)
    proposals.next()
    proposals.close()
    assert states(proposals) == [TrialState.FAIL]


def test_the_journal_is_readable_by_optuna_alone(space: Space, tmp_path: Path) -> None:
    run_all(make(space, tmp_path))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    study = optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend))
    assert len({trial.user_attrs["trial"] for trial in study.trials}) == 6


def test_an_exhausted_run_is_known_to_be_finished_before_anything_starts(tmp_path: Path) -> None:
    path = write_space(tmp_path, defenses=FINITE)
    proposals = make(load_space(str(path)), tmp_path, trials=50)
    assert proposals.nothing_left() is None
    records = run_all(proposals)
    again = make(load_space(str(path)), tmp_path, records, trials=50)
    assert again.nothing_left() == "the space has no other trial"
    assert make(load_space(str(path)), tmp_path, records, trials=9).nothing_left() is not None
