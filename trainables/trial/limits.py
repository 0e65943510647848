"""Limits of one trial: a thread of the worker watches them, and ends the process that breaks one.

Native code that hangs cannot be interrupted, and memory that leaked comes back by the end of its
process alone. What the process had claimed is free when its claims are no longer renewed.
"""

import faulthandler
import logging
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import InputError

logger = logging.getLogger(__name__)

EXIT_CODE = 70
"""Exit code of a process that was ended."""
_POLL_SECONDS = 0.25
_WRITE_SECONDS = 60.0
"""What reporting a breach may take: the storage may hang as well."""
_BLOCKED_SECONDS = 60.0
"""How long after the time limit a process ends whose interpreter lets no thread run."""
_STATM = Path("/proc/self/statm")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """What one trial may take; None: as much as it wants.

    Raises InputError for a limit that is not above 0, and for one of memory where the system does
    not report it (it takes Linux).
    """

    seconds: float | None = None
    """Seconds of its own work; waiting for what another trial builds does not count."""
    memory_gib: float | None = None
    """Resident memory of its process, in GiB, above what that had when the trial began: what
    earlier trials left in a worker is not charged to the next."""

    def __post_init__(self) -> None:
        for name, value in (("time", self.seconds), ("memory", self.memory_gib)):
            if value is not None and not 0 < value < math.inf:  # NaN is refused here too
                raise InputError(f"the {name} limit of a trial must be above 0, but got {value:g}")
        if self.memory_gib is not None and not _STATM.exists():
            raise InputError("a memory limit takes Linux: leave out trial_memory_gib here")


NO_LIMITS = TrialLimits()


@contextmanager
def enforced(
    limits: TrialLimits,
    breach: Callable[[str], object],
    waited: Callable[[], float] = lambda: 0.0,
) -> Iterator[None]:
    """Watch over what runs inside; where it breaks a limit, call `breach` with the reason and end
    the process.

    `waited` returns the seconds so far that do not count. `breach` is called by another thread, and
    at most for a minute. Where native code keeps the interpreter itself from running, the process
    ends a minute after its time limit, and nothing is called.
    """
    if limits == NO_LIMITS:
        yield
        return
    watch = _Watch(limits, breach, waited)
    watch.thread.start()
    try:
        yield
    finally:
        watch.stop()


class _Watch:
    def __init__(
        self, limits: TrialLimits, breach: Callable[[str], object], waited: Callable[[], float]
    ) -> None:
        self.limits, self.breach, self.waited = limits, breach, waited
        self.started, self.waited_before = time.monotonic(), waited()
        self.resident_before = resident_bytes() if limits.memory_gib is not None else 0
        self.over, self.deciding = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._watch, daemon=True, name="trial limits")

    def stop(self) -> None:
        """End the watch; where a breach is being reported, this never returns."""
        with self.deciding:
            self.over.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self.over.is_set():
            with self.deciding:
                reason = None if self.over.is_set() else self._broken()
                if reason is not None:
                    self._end(reason)
            self.over.wait(_POLL_SECONDS)

    def _broken(self) -> str | None:
        seconds, memory_gib = self.limits.seconds, self.limits.memory_gib
        if seconds is not None:
            waited = self.waited() - self.waited_before
            left = seconds - (time.monotonic() - self.started - waited)
            if left <= 0:
                return f"took longer than {duration_text(seconds)}: time limit"
            _end_later(left + _BLOCKED_SECONDS)  # put off for as long as this thread can run
        if memory_gib is not None:
            used = resident_bytes() - self.resident_before
            if used > memory_gib * 2**30:
                return f"used more than {memory_gib:g} GiB: memory limit"
        return None

    def _end(self, reason: str) -> None:
        logger.error("a trial %s; its process ends", reason)
        _end_later(_WRITE_SECONDS + _BLOCKED_SECONDS)
        reporting = threading.Thread(target=self.breach, args=(reason,), daemon=True)
        reporting.start()
        reporting.join(_WRITE_SECONDS)
        os._exit(EXIT_CODE)


def _end_later(seconds: float) -> None:
    """End the process then, from a thread of faulthandler's, which needs no interpreter."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)


def resident_bytes() -> int:
    """Return this process's resident memory, as Linux counts it."""
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()


def parse_duration(text: str | float) -> float:
    """Read 90s, 30m, 2h or 1d, or a number of seconds, as seconds.

    Raises InputError for anything else, and for what is not above 0.
    """
    try:
        seconds = float(text[:-1]) * _UNITS[text[-1:]] if isinstance(text, str) else float(text)
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{text!r} is not a duration: write 90s, 30m, 2h or 1d") from None
    if not 0 < seconds < math.inf:
        raise InputError(f"{text!r} is not a duration: it must be above 0")
    return seconds


def duration_text(seconds: float) -> str:
    """Write seconds in the largest unit that is not above them: 2 h, 1.5 min, 10 s."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
