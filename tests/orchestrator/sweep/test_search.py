"""Tune's view of the proposals: what a trial is sent, given up too early, or lost for good."""

from pathlib import Path

import pytest
from ray.tune.search import Searcher
from rich.console import Console

from orchestrator.run.paths import RunPaths
from orchestrator.search.proposals import Proposals
from orchestrator.sweep.packing import Packing
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.retries import NEW_STARTS, Retries
from orchestrator.sweep.sweep import SweepOptions, _Search
from search_spaces import load_space
from tests.search_spaces.writing import write_space
from trainables.records.record import read_record
from trainables.trial.given import SAMPLED_KEY, SPEC_KEY, GivenSpecs, sampled_of
from trainables.tune import GPUS_KEY


@pytest.fixture
def search(tmp_path: Path) -> _Search:
    """Return the search of a sweep of one trial."""
    space = load_space(str(write_space(tmp_path)))
    paths = RunPaths(tmp_path)
    proposals = Proposals(space, paths.journal, {}, trials=1)
    progress = Progress(proposals, Console(quiet=True))
    return _Search(proposals, paths, SweepOptions(), progress, Packing(0.0, auto=False), Retries())


def test_a_trial_whose_worker_is_lost_starts_anew_and_the_sweep_waits_for_it(
    search: _Search,
) -> None:
    first = search.suggest("a")
    assert search.suggest("b") is None  # not the end: the trial may come back
    search.on_trial_complete("a", error=True)
    assert not search.proposals.finished
    assert search.suggest("b") == first


def test_a_trial_that_stays_lost_is_recorded_as_failed_and_ends_the_sweep(search: _Search) -> None:
    for start in range(NEW_STARTS + 1):
        assert search.suggest(str(start))
        search.on_trial_complete(str(start), error=True)
    (identity,) = search.proposals.finished
    record = read_record(search.paths.records, identity)
    assert record is not None and record.status == "failed"
    assert record.lost and record.error == "its worker or its storage failed, again and again"
    assert search.suggest("last") == Searcher.FINISHED


def test_a_trial_that_its_storage_lost_ends_the_sweep_and_leaves_no_record(search: _Search) -> None:
    assert search.suggest("a") != Searcher.FINISHED
    search.retries.storage["a"] = "the disk is full"
    search.on_trial_complete("a", error=True)
    assert search.failure == "the disk is full"
    assert search.suggest("last") == Searcher.FINISHED
    assert not search.proposals.finished and not search.paths.records.entries(".json")


def test_a_trial_is_sent_its_spec_and_what_was_drawn_for_it(search: _Search) -> None:
    config = search.suggest("a")
    proposal = search.trials["a"]
    assert proposal.flat and config.keys() == {SPEC_KEY, SAMPLED_KEY, GPUS_KEY}
    space = GivenSpecs(search.proposals.space.objectives)
    assert space.spec(config) == proposal.spec
    assert sampled_of(config) == proposal.flat
