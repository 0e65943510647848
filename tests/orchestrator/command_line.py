"""The command line in a process of its own, as users call it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

REPOSITORY = Path(__file__).parents[2]


def start(
    *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    """Start `python -m orchestrator` with these arguments, and with changes of its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own: what is killed is the driver and nothing of the test's.
        start_new_session=True,
    )


def run(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `python -m orchestrator` to its end."""
    process = start(*arguments)
    output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send the driver a signal and wait for its end; gives exit code and output."""
    os.kill(process.pid, number)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output + errors


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 120) -> None:
    """Wait until a condition holds; TimeoutError says which did not."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}, not within {timeout:g} s")
        time.sleep(0.05)
