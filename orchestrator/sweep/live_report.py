"""The report of a running sweep: rewritten alongside it, at little cost."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from ray import tune

from orchestrator.run.paths import RunPaths
from orchestrator.sweep.stateless import Stateless

logger = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
REST = 20.0
"""Times the CPU time that a report took, the next one waits: at most 5 % of one core."""
# Of low priority from before its imports on.
_WRITER = (
    sys.executable, "-c", "import os; os.nice(10); from results.page.live import main; main()",
)  # fmt: skip


class LiveReport(Stateless, tune.Callback):
    """Have a process of low priority write the report, where trials have finished since the last.

    It is a context: at its end no such process is left, so that it overwrites no final report.
    """

    def __init__(
        self,
        paths: RunPaths,
        finished: Callable[[], int],
        *,
        every: float = EVERY_SECONDS,
        writer: Sequence[str] = _WRITER,
    ) -> None:
        self.paths, self.finished = paths, finished
        self.every, self.writer = every, writer
        self.reported = finished()
        self.next = time.monotonic() + every
        self.process: subprocess.Popen[bytes] | None = None
        self.complaints: IO[bytes] | None = None
        self.spent = 0.0
        self.broken = False

    def __enter__(self) -> LiveReport:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self._forget()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Begin a report where it is time for one; never wait for it."""
        del iteration, trials, info
        self.look()

    def look(self) -> None:
        """See whether the last report is written, and whether it is time for the next."""
        if self.process is not None:
            if self.process.poll() is None:
                return
            self._end()
        count = self.finished()
        if self.broken or count == self.reported or time.monotonic() < self.next:
            return
        self.reported = count
        self._begin()

    def _begin(self) -> None:
        self.spent = _children_seconds()
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - open until the process ends
        self.process = subprocess.Popen(
            self.writer,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.complaints,
            # Ctrl-C at the terminal is for the driver, which ends this.
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.paths.address}\n".encode())
        self.process.stdin.close()

    def _end(self) -> None:
        assert self.process is not None and self.complaints is not None
        if self.process.returncode != 0:
            self.broken = True
            self.complaints.seek(0)
            lines = self.complaints.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {self.process.returncode}"
            logger.warning("the report is not written while the run goes on: %s", reason)
        self.next = time.monotonic() + max(self.every, REST * (_children_seconds() - self.spent))
        self._forget()

    def _forget(self) -> None:
        if self.complaints is not None:
            self.complaints.close()
        self.process = self.complaints = None


def _children_seconds() -> float:
    """Return the CPU time of all ended children: of others too, which makes the wait longer
    alone.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
