from pathlib import Path
from typing import Any

import pytest

from orchestrator.search.gpu_hours import GpuHours, check_gpu_hours, gpu_seconds
from orchestrator.search.proposals import Ended, Proposal, Proposals
from search_spaces import load_space
from tests.orchestrator.search.test_proposals import record_of as proposed_record
from tests.orchestrator.search.test_proposals import states
from tests.search_spaces.writing import write_space
from trainables.errors import InputError
from trainables.records.record import TrialRecord


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record_of(trial: str, seconds: int, hardware: dict[str, Any]) -> TrialRecord:
    return TrialRecord(
        trial=trial,
        spec={},
        sampled={},
        status="completed",
        hardware=hardware,
        started="2026-01-01T10:00:00.000+00:00",
        finished=f"2026-01-01T10:{seconds // 60:02}:{seconds % 60:02}.000+00:00",
    )


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [({"gpus": 1.0}, 90), ({"gpus": 0.25}, 22.5), ({"gpus": 2}, 180), ({"gpus": 0}, 0), ({}, 0)],
)
def test_a_record_counts_its_wall_time_times_its_gpus(
    hardware: dict[str, Any], expected: float
) -> None:
    assert gpu_seconds(record_of("a", 90, hardware)) == expected


def test_ended_and_running_trials_add_up() -> None:
    clock = Clock()
    hours = GpuHours(1.0, [record_of("a", 1800, {"gpus": 1.0})], clock)
    assert hours.used() == 0.5
    hours.start("b", 2.0)
    clock.now += 450
    assert hours.used() == 0.75
    hours.start("b", 2.0)  # its worker died, and it runs again
    clock.now += 450
    hours.end("b")
    clock.now += 10_000
    assert hours.used() == 1.0
    hours.end("never started")
    assert hours.used() == 1.0


def test_hours_that_are_spent_end_a_sweep_and_more_of_them_resume_it(tmp_path: Path) -> None:
    clock = Clock()
    space = load_space(str(write_space(tmp_path)))
    hours = GpuHours(0.5, [], clock)
    proposals = Proposals(space, tmp_path / "journal", {}, trials=6, gpu_hours=hours)
    first, second = proposals.next(), proposals.next()
    assert isinstance(first, Proposal) and isinstance(second, Proposal)
    hours.start("1", 1.0)
    clock.now += 1800
    ended = proposals.next()
    assert isinstance(ended, Ended)
    assert "0.5 GPU hours are spent" in ended.reason and "larger --max-gpu-hours" in ended.reason
    proposals.finish(proposed_record(first))
    proposals.withdraw(second.spec.trial, ended.reason)
    assert not proposals.live
    assert [state.name for state in states(proposals)] == ["COMPLETE", "FAIL"]
    record = proposals.finished[first.spec.trial]
    more = GpuHours(0.6, [record], clock)
    resumed = Proposals(
        space, tmp_path / "journal", {record.trial: record}, trials=6, gpu_hours=more
    )
    assert isinstance(resumed.next(), Proposal)


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan"), float("inf")])
def test_hours_that_are_none_are_refused(most: float) -> None:
    with pytest.raises(InputError, match="--max-gpu-hours must be above 0"):
        check_gpu_hours(most, 1.0)


def test_hours_are_refused_where_trials_take_no_gpu() -> None:
    with pytest.raises(InputError, match="no trial uses a GPU"):
        check_gpu_hours(2.0, 0.0)
    check_gpu_hours(2.0, 0.25)
    check_gpu_hours(None, 0.0)
