"""The live table of a sweep: done, running, failed, the best so far, the front, the time left."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.proposals import Proposals, objective_values
from results.pareto import front, to_losses
from trainables.metrics import Measured
from trainables.record import TrialRecord

_EVERY_SECONDS = 0.5


class Progress(tune.Callback):
    """Follow a sweep on a terminal; elsewhere stay quiet."""

    def __init__(self, proposals: Proposals, console: Console) -> None:
        self.proposals, self.console = proposals, console
        self.before = len(proposals.finished)
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
        """Say at once that a trial failed, and why."""
        if record.status == "failed" and self.console.is_terminal:
            self.console.print(Text(f"trial {record.trial} failed: {record.error}", style="red"))

    def close(self) -> None:
        """Take the table away."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def front_artefacts(self) -> set[str]:
        """List the artefacts of the trials on the front: what eviction spares."""
        return {key for record in self._front() for key in record.artefacts.values()}

    def _front(self) -> list[TrialRecord]:
        rows = [
            (record, values)
            for record in self.proposals.finished.values()
            if not record.struck_off
            and (values := objective_values(self.proposals.space, record)) is not None
        ]
        if not rows:
            return []
        maximized = [o.direction == "maximize" for o in self.proposals.space.objectives]
        losses = to_losses(np.array([values for _, values in rows]), maximized)
        return [record for (record, _), on in zip(rows, front(losses), strict=True) if on]

    def _table(self) -> Group:
        finished = self.proposals.finished
        done, failed = len(finished), _failed(finished.values())
        total = self.proposals.trials
        counts = Text(
            f"{done}/{total} trials  {len(self.proposals.live)} running  {failed} failed  "
            f"front {len(self._front())}  {self._time_left(done)}"
        )
        table = Table("objective", "best", "95 % interval", "n", box=None, pad_edge=False)
        for objective in self.proposals.space.objectives:
            table.add_row(objective.metric, *self._best(objective.metric, objective.direction))
        return Group(ProgressBar(total=total, completed=done, width=60), counts, table)

    def _best(self, metric: str, direction: str) -> tuple[str, str, str]:
        values = [
            value
            for record in self.proposals.finished.values()
            if not record.struck_off and isinstance(value := record.metrics.get(metric), Measured)
        ]
        if not values:
            return "-", "-", "-"
        sign = -1 if direction == "maximize" else 1
        best = min(values, key=lambda value: sign * value.value)
        return f"{best.value:.3f}", f"{best.low:.3f} - {best.high:.3f}", str(best.n)

    def _time_left(self, done: int) -> str:
        new, elapsed = done - self.before, time.monotonic() - self.started
        if not new:
            return "estimating the time left"
        left = (self.proposals.trials - done) * elapsed / new
        return f"about {_duration(left)} left"

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for a resume of its own, which is never used here.
        return {}


def _failed(records: Iterable[TrialRecord]) -> int:
    return sum(record.status == "failed" for record in records)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
