"""The live table of a sweep: done, running, failed, the best so far, the front, the time left."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.audit.plan import AuditPlan
from orchestrator.search.proposals import TrialSource
from orchestrator.search.study import objective_values
from orchestrator.sweep.stateless import Stateless
from results.statistics.fronts import front, to_losses
from trainables.records.record import TrialRecord
from trainables.records.value import Measured

_EVERY_SECONDS = 0.5


class Progress(Stateless, tune.Callback):
    """Follow a sweep on a terminal; elsewhere stay quiet."""

    what = "trials"

    def __init__(self, proposals: TrialSource, console: Console) -> None:
        self.proposals, self.console = proposals, console
        self.before = len(proposals.finished)
        self.failed = 0
        self.best: dict[str, Measured] = {}
        self.front: list[TrialRecord] = []
        self._on_front: list[list[float]] = []
        """The objectives of the front's trials, in the front's order."""
        # Brought up to date trial by trial: to go through thousands each time would take seconds.
        self._take(proposals.finished.values())
        self.started = time.monotonic()
        self.shown = 0.0
        self.live: Live | None = None

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Draw the table again, not more than twice a second."""
        del iteration, trials, info
        now = time.monotonic()
        if self.console.is_terminal and now - self.shown > _EVERY_SECONDS:
            self.shown = now
            if self.live is None:
                self.live = Live(console=self.console, auto_refresh=False, transient=True)
                self.live.start()
            self.live.update(self._table(), refresh=True)

    def note(self, record: TrialRecord) -> None:
        """Count a trial that has just finished; say at once that it failed, and why."""
        self._take([self.proposals.finished[record.trial]])
        if record.status == "failed" and self.console.is_terminal:
            self.console.print(Text(f"trial {record.trial} failed: {record.error}", style="red"))

    def close(self) -> None:
        """Take the table away."""
        if self.live is not None:
            self.live.stop()
            self.live = None

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
        done = len(self.proposals.finished)
        total = self.proposals.trials
        counts = Text(
            f"{done}/{total} {self.what}  {self.proposals.running} running  {self.failed} failed  "
            f"front {len(self.front)}  {self._time_left(done)}"
        )
        return Group(ProgressBar(total=total, completed=done, width=60), counts, self._details())

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
        new, elapsed = done - self.before, time.monotonic() - self.started
        if not new:
            return "estimating the time left"
        left = (self.proposals.trials - done) * elapsed / new
        return f"about {_duration(left)} left"


class AuditProgress(Progress):
    """Follow an audit: how far each candidate is, and what its seeds came to."""

    what = "audit trials"

    def __init__(self, proposals: TrialSource, console: Console, plan: AuditPlan) -> None:
        super().__init__(proposals, console)
        self.plan = plan

    def _details(self) -> Table:
        metrics = [objective.metric for objective in self.proposals.space.objectives]
        table = Table("candidate", "seeds", *metrics, box=None, pad_edge=False)
        for each in self.plan.planned:
            records = [self.proposals.finished.get(spec.trial) for spec in each.specs]
            done = [record for record in records if record is not None]
            means = [_mean_text(done, metric) for metric in metrics]
            table.add_row(Text(each.label), f"{len(done)} of {len(records)}", *means)
        return table


def _mean_text(records: Sequence[TrialRecord], metric: str) -> str:
    found = [record.metrics.get(metric) for record in records]
    values = [value.value for value in found if isinstance(value, Measured)]
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
