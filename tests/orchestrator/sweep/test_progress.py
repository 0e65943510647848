"""What a sweep says of itself while it runs, where nobody watches a terminal."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.audit.candidates import Candidate
from orchestrator.audit.plan import AuditPlan, Planned
from orchestrator.audit.specs import AuditSettings
from orchestrator.run.paths import RunPaths
from orchestrator.search.proposals import Proposal, Proposals
from orchestrator.sweep.progress import AuditProgress, Progress
from search_spaces import load_space
from tests.search_spaces.writing import write_space
from trainables.records.value import Measured, MetricValue
from trainables.trial.stages import failed_record


@pytest.fixture
def proposals(tmp_path: Path) -> Proposals:
    """Return the proposals of a search of three trials."""
    space = load_space(str(write_space(tmp_path)))
    return Proposals(space, RunPaths(tmp_path).journal, {}, trials=3)


def _proposed(proposals: Proposals) -> Proposal:
    found = proposals.next()
    assert isinstance(found, Proposal)
    return found


class Clock:
    """A clock that stands still."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time that it shows."""
        return self.now


def _lines(shown: StringIO) -> list[str]:
    return shown.getvalue().splitlines()


def test_a_line_every_half_minute_says_how_far_a_search_is(proposals: Proposals) -> None:
    shown, clock = StringIO(), Clock()
    progress = Progress(proposals, Console(file=shown, width=40), clock=clock)
    first, _ = _proposed(proposals), _proposed(proposals)
    clock.now += 29
    progress.on_step_end(0, [])
    assert _lines(shown) == []
    clock.now += 1
    progress.on_step_end(0, [])
    progress.on_step_end(0, [])
    begun = "0/3 trials, 2 running, 0 failed, 0 on the front, estimating the time left"
    assert _lines(shown) == [begun]

    record = failed_record(first.spec, first.flat, "")
    found: dict[str, MetricValue] = {
        "clean_accuracy": Measured(0.9, 0.8, 0.95, 270),
        "generalization_gap": Measured(0.05, -0.01, 0.1, 270),
    }
    record = replace(record, status="completed", error=None, metrics=found)
    proposals.finish(record)
    progress.note(record)
    clock.now += 30
    progress.on_step_end(0, [])
    counts, *best = _lines(shown)[1].split("; ")
    assert counts == "1/3 trials, 1 running, 0 failed, 1 on the front, about 2 min left"
    assert best == [
        "best clean_accuracy 0.900 [0.800, 0.950] (n = 270)",
        "best generalization_gap 0.050 [-0.010, 0.100] (n = 270)",
    ]


def test_a_failed_trial_is_said_at_once_on_one_line(proposals: Proposals) -> None:
    shown = StringIO()
    progress = Progress(proposals, Console(file=shown, width=40), clock=Clock())
    proposal = _proposed(proposals)
    record = failed_record(proposal.spec, proposal.flat, "a reason that is longer than 40 columns")
    proposals.finish(record)
    progress.note(record)
    assert _lines(shown) == [f"Trial {record.trial} failed: {record.error}"]


def test_an_audit_counts_the_candidates_that_are_complete(
    proposals: Proposals, tmp_path: Path
) -> None:
    first, second = _proposed(proposals).spec, _proposed(proposals).spec
    candidate = Candidate(search_trial=first.trial, spec=first.canonical(), why="front")
    plan = AuditPlan(
        paths=RunPaths(tmp_path / "audit"),
        settings=AuditSettings(shadows=None, points=None),
        seeds=(1001,),
        planned=tuple(Planned(candidate=candidate, specs=(each,)) for each in (first, second)),
    )
    record = failed_record(first, {}, "no memory")
    proposals.finish(record)
    progress = AuditProgress(proposals, Console(file=StringIO()), plan, clock=Clock())
    assert progress.line().startswith("1/3 audit trials, 1 running, 1 failed, ")
    assert progress.line().endswith("; 1 of 2 candidates complete")
