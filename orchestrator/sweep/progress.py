"""How far a sweep is: done, running, failed, the best so far, the front, the time left."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.audit.plan import AuditPlan, Planned
from orchestrator.search.proposals import TrialSource
from orchestrator.search.study import objective_values
from orchestrator.sweep.stateless import Stateless
from results.records.values import value_text
from results.statistics.fronts import front, to_losses
from trainables.records.record import TrialRecord
from trainables.records.value import Measured

_TABLE_EVERY_SECONDS = 0.5
_LINE_EVERY_SECONDS = 30.0
"""A log shows that a sweep goes on, but is no film of it."""


class Progress(Stateless, tune.Callback):
    """Follow a sweep: by a live table on a terminal, elsewhere by a line every 30 seconds."""

    what = "trials"

    def __init__(
        self,
        proposals: TrialSource,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.proposals, self.console, self.clock = proposals, console, clock
        self.before = len(proposals.finished)
        self.failed = 0
        self.best: dict[str, Measured] = {}
        self.front: list[TrialRecord] = []
        self._on_front: list[list[float]] = []
        """The objectives of the front's trials, in the front's order."""
        # Brought up to date trial by trial: to go through thousands each time would take seconds.
        self._take(proposals.finished.values())
        self.started = self.shown = clock()
        self.live: Live | None = None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Draw the table again, or print the next line, where it is time."""
        del iteration, trials, info
        on_terminal, now = self.console.is_terminal, self.clock()
        if now - self.shown < (_TABLE_EVERY_SECONDS if on_terminal else _LINE_EVERY_SECONDS):
            return
        self.shown = now
        if not on_terminal:
            self.console.print(Text(self.line()), soft_wrap=True)
            return
        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        self.live.update(self._table(), refresh=True)

    def note(self, record: TrialRecord) -> None:
        """Count a trial that has just finished; say at once that it failed, and why."""
        self._take([self.proposals.finished[record.trial]])
        if record.status == "failed":
            said = Text(f"Trial {record.trial} failed: {record.error}", style="red")
            self.console.print(said, soft_wrap=True)

    def close(self) -> None:
        """Take the table away."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def line(self) -> str:
        """Return how far the sweep is on one line, as in a log."""
        return "; ".join([", ".join(self._counts()), *self._found()])

    def front_artefacts(self) -> set[str]:
        """List the artefacts of the trials on the front: what eviction spares."""
        return {key for record in self.front for key in record.artefacts.values()}

    def _take(self, records: Iterable[TrialRecord]) -> None:
        objectives = self.proposals.space.objectives
        found = list(zip(self.front, self._on_front, strict=True))
        for record in records:
            self.failed += record.status == "failed"
            if record.is_struck_off:
                continue
            for objective in objectives:
                value = record.metrics.get(objective.metric)
                if isinstance(value, Measured):
                    self._compare(objective.metric, objective.direction, value)
            if values := objective_values(self.proposals.space, record):
                found.append((record, values))
        if len(found) > len(self.front):
            maximized = [objective.direction == "maximize" for objective in objectives]
            losses = to_losses(np.array([values for _, values in found]), maximized)
            kept = [each for each, on in zip(found, front(losses), strict=True) if on]
            self.front = [record for record, _ in kept]
            self._on_front = [values for _, values in kept]

    def _compare(self, metric: str, direction: str, value: Measured) -> None:
        sign = -1 if direction == "maximize" else 1
        best = self.best.get(metric)
        if best is None or sign * value.value < sign * best.value:
            self.best[metric] = value

    def _table(self) -> Group:
        done, total = len(self.proposals.finished), self.proposals.trials
        counts = Text("  ".join(self._counts()))
        return Group(ProgressBar(total=total, completed=done, width=60), counts, self._details())

    def _counts(self) -> list[str]:
        done = len(self.proposals.finished)
        return [
            f"{done}/{self.proposals.trials} {self.what}",
            f"{self.proposals.running} running",
            f"{self.failed} failed",
            f"{len(self.front)} on the front",
            self._time_left(done),
        ]

    def _found(self) -> list[str]:
        """Return what a line says of the results: the best value of each objective."""
        return [
            f"best {name} {value_text(best)} (n = {best.n})" for name, best in self.best.items()
        ]

    def _details(self) -> Table:
        table = Table("objective", "best", "95 % interval", "n", box=None, pad_edge=False)
        for objective in self.proposals.space.objectives:
            table.add_row(objective.metric, *self._best(objective.metric))
        return table

    def _best(self, metric: str) -> tuple[str, str, str]:
        best = self.best.get(metric)
        if best is None:
            return "-", "-", "-"
        return f"{best.value:.3f}", f"{best.low:.3f} - {best.high:.3f}", str(best.n)

    def _time_left(self, done: int) -> str:
        new, elapsed = done - self.before, self.clock() - self.started
        if not new:
            return "estimating the time left"
        left = (self.proposals.trials - done) * elapsed / new
        return f"about {_duration(left)} left"


class AuditProgress(Progress):
    """Follow an audit: how far each candidate is, and what its seeds came to."""

    what = "audit trials"

    def __init__(
        self,
        proposals: TrialSource,
        console: Console,
        plan: AuditPlan,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(proposals, console, clock=clock)
        self.plan = plan

    def _details(self) -> Table:
        metrics = [objective.metric for objective in self.proposals.space.objectives]
        table = Table("candidate", "seeds", *metrics, box=None, pad_edge=False)
        for each in self.plan.planned:
            done = self._done(each)
            means = [_mean_text(done, metric) for metric in metrics]
            table.add_row(Text(each.label), f"{len(done)} of {len(each.specs)}", *means)
        return table

    def _found(self) -> list[str]:
        complete = sum(len(self._done(each)) == len(each.specs) for each in self.plan.planned)
        return [f"{complete} of {len(self.plan.planned)} candidates complete"]

    def _done(self, planned: Planned) -> list[TrialRecord]:
        records = [self.proposals.finished.get(spec.trial) for spec in planned.specs]
        return [record for record in records if record is not None]


def _mean_text(records: Sequence[TrialRecord], metric: str) -> str:
    found = [record.metrics.get(metric) for record in records]
    values = [value.value for value in found if isinstance(value, Measured)]
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
