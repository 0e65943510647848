"""Which trial comes next: an Optuna study that owns the budget. Knows nothing of Ray."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import optuna
from optuna.trial import TrialState

from orchestrator.search.gpu_hours import GpuHours
from orchestrator.search.samplers import successor
from orchestrator.search.study import (
    TRIAL,
    Measures,
    objective_values,
    open_study,
    reconcile,
    violations,
)
from search_spaces import Space
from search_spaces.domains import Flat
from trainables.errors import InputError
from trainables.records.record import TrialRecord
from trainables.trial.spec import TrialSpec

DUPLICATES_IN_A_ROW = 20
"""So many proposals of known trials end a search that cannot be enumerated."""
MOST_ENUMERATED = 20_000
"""Draws up to which a space is enumerated when its search repeats itself."""
MOST_IN_A_GRID = 1_000_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run."""

    flat: Flat
    spec: TrialSpec


@dataclass(frozen=True, slots=True)
class Ended:
    """No further trial, and why."""

    reason: str
    spent: bool = False
    """Whether a budget of time or GPU hours is spent: nothing else may begin either."""


class TrialSource(Protocol):
    """Where a sweep's trials come from: a search, or a list such as an audit's."""

    trials: int
    """In all, recorded ones included."""
    finished: dict[str, TrialRecord]
    """Identity -> bare record."""
    ended: Ended | None
    gpu_hours: GpuHours | None

    @property
    def space(self) -> Measures:
        """What has the objectives of its trials."""

    @property
    def running(self) -> int:
        """Trials that were proposed and have not finished."""

    def next(self) -> Proposal | Ended:
        """Propose a trial that is neither finished nor running, or end."""

    def finish(self, record: TrialRecord) -> None:
        """Take a finished trial's record."""

    def withdraw(self, trial: str, reason: str) -> None:
        """Take a trial back for which the budget does not suffice, and end."""

    def close(self) -> None:
        """Forget what still runs."""


class Proposals:
    """The study, the records so far, and the trials that run now."""

    def __init__(
        self,
        space: Space,
        journal: Path,
        records: Mapping[str, TrialRecord],
        *,
        trials: int | None,
        deadline: float | None = None,
        gpu_hours: GpuHours | None = None,
        grid: Mapping[str, Flat] | None = None,
    ) -> None:
        self.space, self.deadline, self.gpu_hours = space, deadline, gpu_hours
        self.finished = {name: self._bare(record) for name, record in records.items()}
        self.live: dict[str, list[optuna.Trial]] = {}
        """Identity -> what the study asked for: a trial here is a spec's, not one of Optuna's."""
        self.ended: Ended | None = None
        self._duplicates = 0
        self._unseen: deque[Flat] | None = None
        self._first = deque(space.first_draws())
        if space.file.search.algorithm == "grid":
            grid = whole_grid(space) if grid is None else grid
            self._unseen, self._first = deque(grid.values()), deque()
            trials = len(grid) if trials is None else trials
        assert trials is not None  # the command line gives a number to other searches
        self.trials = trials
        self.study = open_study(space, journal, len(self.finished))
        reconcile(self.study, space, self.finished)

    def next(self) -> Proposal | Ended:
        """Propose a trial that is neither finished nor running, or end the sweep."""
        while self.ended is None:
            self.ended = self._why_end()
            if self.ended is not None:
                break
            asked = self._ask()
            flat = self.space.suggest(asked)
            spec = self.space.spec(flat)
            asked.set_user_attr(TRIAL, spec.trial)
            if spec.trial in self.finished:
                self._duplicates += 1
                self._tell(asked, self.finished[spec.trial])
            elif spec.trial in self.live:
                self._duplicates += 1
                self.live[spec.trial].append(asked)
            else:
                self._duplicates = 0
                self.live[spec.trial] = [asked]
                return Proposal(flat, spec)
        return self.ended

    @property
    def running(self) -> int:
        """Trials that were proposed and have not finished."""
        return len(self.live)

    def nothing_left(self) -> str | None:
        """Return why nothing is left to run, before anything is started; None where something
        is.
        """
        if len(self.finished) >= self.trials:
            return "as many as were asked for"
        found = self.space.distinct_specs(MOST_ENUMERATED)
        if found is not None and found.keys() <= self.finished.keys():
            return "the space has no other trial"
        return None

    def finish(self, record: TrialRecord) -> None:
        """Report a finished trial's record to the study."""
        self.finished[record.trial] = self._bare(record)
        for asked in self.live.pop(record.trial, []):
            self._tell(asked, record)

    def withdraw(self, trial: str, reason: str) -> None:
        """Take a trial back for which the budget does not suffice, and end the sweep."""
        for asked in self.live.pop(trial, []):
            self.study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)
        self.ended = Ended(reason, spent=True)

    def close(self) -> None:
        """Report to the study that what still runs will not end, so that nothing runs for ever."""
        for waiting in self.live.values():
            for asked in waiting:
                self.study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)
        self.live.clear()

    def _why_end(self) -> Ended | None:
        if len(self.finished) + len(self.live) >= self.trials:
            return Ended(f"all {self.trials} trials are done or running")
        spent = budget_end(self.deadline, self.gpu_hours)
        if spent is not None:
            return spent
        if self._duplicates >= DUPLICATES_IN_A_ROW and self._unseen is None:
            found = self.space.distinct_specs(MOST_ENUMERATED)
            if found is None:
                return Ended(f"{DUPLICATES_IN_A_ROW} proposals in a row were trials done before")
            self._unseen = deque(found.values())
        if self._unseen is not None:
            self._drop_seen(self._unseen)
            if not self._unseen:
                return Ended("the space has no other trial")
        return None

    def _drop_seen(self, draws: deque[Flat]) -> None:
        while draws and self._known(draws[0]):
            draws.popleft()

    def _known(self, flat: Flat) -> bool:
        trial = self.space.spec(flat).trial
        return trial in self.finished or trial in self.live

    def _ask(self) -> optuna.Trial:
        self.study.sampler = successor(self.study.sampler, self.space, len(self.finished))
        self._drop_seen(self._first)
        source = self._first or self._unseen
        if source:
            # A draw that is cut is told as what runs of it.
            self.study.enqueue_trial(self.space.ran(source.popleft()))
        return self.study.ask()

    def _tell(self, asked: optuna.Trial, record: TrialRecord) -> None:
        values = objective_values(self.space, record)
        if values is None:
            self.study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)
            return
        for number, violation in enumerate(violations(self.space, record)):
            asked.set_constraint(f"constraint{number}", violation)
        self.study.tell(asked, values, skip_if_finished=True)

    def _bare(self, record: TrialRecord) -> TrialRecord:
        """Keep of a record what the search and the live table need: thousands are held."""
        objectives = {objective.metric for objective in self.space.objectives}
        return record.bare(objectives | {bound.metric for bound in self.space.constraints})


def whole_grid(space: Space) -> dict[str, Flat]:
    """Return every trial of a grid by its identity. Raises InputError where it is too large."""
    grid = space.distinct_specs(MOST_IN_A_GRID)  # the loader has refused a grid without points
    if grid is None:
        raise InputError(
            f"space {space.name}: search: the grid has more than {MOST_IN_A_GRID:,} points"
        )
    return grid


def budget_end(deadline: float | None, gpu_hours: GpuHours | None) -> Ended | None:
    """Return that the time or the GPU hours are spent, if they are."""
    if deadline is not None and time.time() >= deadline:
        return Ended("the time budget is spent", spent=True)
    reason = None if gpu_hours is None else gpu_hours.why_end()
    return None if reason is None else Ended(reason, spent=True)
