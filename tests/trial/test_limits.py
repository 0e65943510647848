"""Trials that hang or leak end, each in a process of its own, and leave a record that says so."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.orchestrator.command_line import run
from tests.search_spaces.writing import write_space
from trainables.errors import InputError
from trainables.records.record import TrialRecord
from trainables.trial.limits import (
    EXIT_CODE,
    NO_LIMITS,
    TrialLimits,
    duration_text,
    enforced,
    parse_duration,
)

HEAD = """
import re, sys, time
from trainables.trial import limits
limits._POLL_SECONDS, limits._WRITE_SECONDS, limits._BLOCKED_SECONDS = 0.05, 0.5, 0.5
Limits = limits.TrialLimits
def tell(reason): print(reason, flush=True)
"""


def _ended(body: str) -> tuple[int, str, str]:
    """Run a script to its end; give exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + body], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_a_process_that_hangs_is_ended_and_says_why() -> None:
    code, said, _ = _ended("with limits.enforced(Limits(seconds=0.5), tell): time.sleep(600)")
    assert (code, said) == (EXIT_CODE, "took longer than 0.5 s: time limit\n")


def test_a_process_that_leaks_is_ended_and_says_why() -> None:
    code, said, _ = _ended(
        "kept = [b'x' * 2**28]\n"  # 256 MiB from before, which do not count
        "with limits.enforced(Limits(memory_gib=0.2, seconds=50), tell):\n"
        "    while True: kept.append(b'x' * 2**22); time.sleep(0.005)"
    )
    assert (code, said) == (EXIT_CODE, "used more than 0.2 GiB: memory limit\n")


def test_native_code_that_lets_no_thread_run_is_ended_too() -> None:
    started = time.monotonic()
    code, said, errors = _ended(
        "with limits.enforced(Limits(seconds=0.5), tell): re.match('(a+)+$', 'a' * 99 + 'b')"
    )
    assert code not in (0, EXIT_CODE) and said == ""
    assert "Timeout" in errors
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("breach", ["lambda reason: time.sleep(600)", "lambda reason: 1 / 0"])
def test_a_process_is_ended_whatever_becomes_of_its_record(breach: str) -> None:
    code, _, _ = _ended(f"with limits.enforced(Limits(seconds=0.2), {breach}): time.sleep(600)")
    assert code == EXIT_CODE


def test_what_a_trial_waits_for_others_does_not_count() -> None:
    code, said, errors = _ended(
        "with limits.enforced(Limits(seconds=0.5), tell, time.monotonic): time.sleep(1.5)\n"
        "tell('done')"
    )
    assert (code, said) == (0, "done\n"), errors


def test_within_its_limits_a_trial_is_left_alone_and_no_watch_stays() -> None:
    broken: list[str] = []
    before = threading.active_count()
    with enforced(TrialLimits(seconds=600, memory_gib=1000), broken.append):
        assert threading.active_count() == before + 1
        time.sleep(0.3)
    assert threading.active_count() == before and broken == []
    with pytest.raises(ZeroDivisionError), enforced(TrialLimits(seconds=600), broken.append):
        raise ZeroDivisionError
    with enforced(NO_LIMITS, broken.append):
        assert threading.active_count() == before


def test_the_memory_of_a_process_is_read() -> None:
    # In a process of its own: this one may hold memory that earlier tests have given back.
    program = (
        "from trainables.trial.limits import resident_bytes; before = resident_bytes(); "
        "held = b'x' * 2**26; print((resident_bytes() - before) / len(held))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 0.9 < float(done.stdout) < 1.5, done.stderr


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_must_be_above_zero(number: float) -> None:
    with pytest.raises(InputError, match="the time limit of a trial must be above 0"):
        TrialLimits(seconds=number)
    with pytest.raises(InputError, match="the memory limit of a trial must be above 0"):
        TrialLimits(memory_gib=number)


@pytest.mark.parametrize(
    ("text", "seconds", "said"),
    [("90s", 90, "1.5 min"), ("2h", 7200, "2 h"), (10, 10, "10 s"), ("1d", 86400, "1 d")],
)
def test_durations_are_read_and_written(text: str | float, seconds: float, said: str) -> None:
    assert parse_duration(text) == seconds
    assert duration_text(seconds) == said


@pytest.mark.slow
def test_a_sweep_outlives_trials_that_hang_leak_raise_and_diverge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys, log = "tests.defenses.toys", tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    path = write_space(
        tmp_path,
        defenses={f"{toys}:{name}": None for name in ("Hangs", "Leaks", "Breaks", "NotANumber")},
        max_stack=1,
        search={"algorithm": "grid"},
        resources={"trial_time_limit": 20},
    )
    done = run(
        "launch", "--no-audit", "--space", str(path), "--runs", str(tmp_path), "--name", "run",
        "--trial-time-limit", "12s", "--trial-memory-gib", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = {}
    for file in (tmp_path / "run" / "records").iterdir():
        record = TrialRecord.from_json(file.read_text())
        records[record.spec["stack"][0]["name"] if record.spec["stack"] else "none"] = record
    errors = {name.rpartition(":")[2]: record.error for name, record in records.items()}
    assert errors == {
        "none": None,
        "Hangs": "took longer than 12 s: time limit",
        "Leaks": "used more than 1 GiB: memory limit",
        "Breaks": "RuntimeError: first line second line",
        "NotANumber": "TrainingDivergedError: the training loss is nan in epoch 1 of 1; lower the "
        "learning rate or the penalty",
    }
    assert records["none"].status == "completed"
    assert log.read_text() == "tried\n"  # and not again
    ended = records[f"{toys}:Hangs"]
    assert ended.status == "failed" and "data" in ended.timings and ended.hardware
    assert json.loads(ended.to_json())["finished"] > ended.started
    assert "5 of 5 trials recorded, 4 failed" in done.stdout
