"""The GPU hours of a run, and the end of a sweep that has spent what it was given."""

import math
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from trainables.errors import InputError
from trainables.records.record import TrialRecord


class GpuHours:
    """Counts wall seconds times GPUs: of earlier trials by their records, of others as they run."""

    def __init__(
        self,
        most: float,
        records: Iterable[TrialRecord],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self._clock = most, clock
        self._ended_seconds = sum(gpu_seconds(record) for record in records)
        self._running: dict[str, tuple[float, float]] = {}

    def start(self, trial: str, gpus: float) -> None:
        """Note that a trial began to run; a second start of the same one counts from the first."""
        self._running.setdefault(trial, (self._clock(), gpus))

    def end(self, trial: str) -> None:
        """Note that a trial no longer runs; one that never did is left out."""
        started, gpus = self._running.pop(trial, (0.0, 0.0))
        self._ended_seconds += (self._clock() - started) * gpus

    def used(self) -> float:
        """Return the GPU hours until now."""
        now = self._clock()
        running = sum((now - started) * gpus for started, gpus in self._running.values())
        return (self._ended_seconds + running) / 3600

    def why_end(self) -> str | None:
        """Return that the hours are spent, if they are."""
        used = self.used()
        if used < self.most:
            return None
        return (
            f"its {self.most:g} GPU hours are spent ({used:.3g} counted; what ran was finished); "
            "a larger --max-gpu-hours resumes it"
        )


def check_gpu_hours(most: float | None, gpus: float) -> None:
    """Raise InputError where GPU hours are limited to nothing, or where trials take no GPU."""
    if most is None:
        return
    if not 0 < most < math.inf:  # NaN is refused here too
        raise InputError(f"--max-gpu-hours must be above 0, but got {most:g}")
    if gpus == 0:
        raise InputError(
            f"--max-gpu-hours {most:g}: no trial uses a GPU here; set --gpus-per-trial, or limit "
            "the sweep with --time-budget"
        )


def gpu_seconds(record: TrialRecord) -> float:
    """Return the wall seconds of a trial times the GPUs that it was given; 0 where it had none."""
    gpus = float(record.hardware.get("gpus", 0.0))
    if not gpus or not record.started or not record.finished:
        return 0.0
    started, finished = map(datetime.fromisoformat, (record.started, record.finished))
    return gpus * max(0.0, (finished - started).total_seconds())
