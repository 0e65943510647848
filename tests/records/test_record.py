import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from trainables.records.record import (
    LOST,
    TrialRecord,
    metric_from_plain,
    metric_to_plain,
    read_record,
    write_record,
)
from trainables.records.strict import UNREADABLE, why_unreadable
from trainables.records.value import Measured, Missing
from trainables.storage.folders import LocalFolder, write_atomically

RECORD = TrialRecord(
    trial="abc",
    spec={
        "data": {"name": "digits"},
        "model": {"name": "small_cnn"},
        "training": {"epochs": 1},
        "stack": [{"name": "temperature", "T": 1.5}],
        "effort": "screen",
        "seed": 0,
    },
    sampled={"deployment": "temperature"},
    status="completed",
    metrics={
        "clean_accuracy": Measured(0.5, 0.4, 0.6, 10),
        "lpips_pgd": Missing("the weights are not here"),
    },
    curves={"train_loss": [1.0, 0.5]},
    timings={"training": 0.1},
    artefacts={"model": "model-1"},
    notes={"evasion": {"broken_by": ["pgd", "none"]}},
    finished="2026-01-01T10:00:00+00:00",
)


def test_a_record_comes_back_from_its_json_as_it_was() -> None:
    assert TrialRecord.from_json(RECORD.to_json()) == RECORD


def test_a_missing_metric_is_null_with_its_reason() -> None:
    plain = json.loads(RECORD.to_json())["metrics"]
    assert plain["lpips_pgd"] == {"value": None, "reason": "the weights are not here"}
    assert plain["clean_accuracy"] == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}


@pytest.mark.parametrize("value", [Measured(1.0, 1.0, 1.0, 3), Missing("why")])
def test_metrics_come_back_from_their_plain_form(value: Measured | Missing) -> None:
    assert metric_from_plain(metric_to_plain(value)) == value


def test_a_lost_trial_is_told_from_one_that_failed_by_itself() -> None:
    failed = replace(RECORD, status="failed", error=LOST)
    assert not TrialRecord.from_json(failed.to_json()).lost
    assert TrialRecord.from_json(replace(failed, lost=True).to_json()).lost
    assert replace(failed, lost=True).bare().lost


@pytest.mark.parametrize(("error", "lost"), [(LOST, True), ("no memory", False), (None, False)])
def test_a_record_of_an_older_program_is_lost_by_its_words(error: str | None, lost: bool) -> None:
    plain = json.loads(RECORD.to_json()) | {"status": "failed", "error": error}
    del plain["lost"]
    assert TrialRecord.from_plain(plain).lost == lost


def test_parts_that_an_older_program_did_not_write_are_empty() -> None:
    needed = {"trial": "abc", "status": "completed", "spec": RECORD.spec}
    read = TrialRecord.from_plain(needed | {"part of a later program": 1})
    assert read == TrialRecord(trial="abc", status="completed", spec=RECORD.spec, sampled={})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "holds no JSON object"),
        ('{"trial": "a"', "is not JSON (Expecting ',' delimiter: line 1 column 14 (char 13))"),
        ('{"trial": NaN}', "NaN is not a number"),
        ('{"trial": "a", "status": "failed"}', "lacks 'spec'"),
        ('{"trial": "a", "spec": {}, "status": "odd"}',
         "unknown status 'odd'; known: completed, failed, stopped"),
        ('{"trial": "a", "spec": {"data": 1, "stack": []}, "status": "failed"}',
         "its spec lacks model, training, effort, seed"),
    ],
)  # fmt: skip
def test_what_is_not_a_record_is_refused_in_words(content: str, words: str) -> None:
    with pytest.raises(UNREADABLE) as caught:
        TrialRecord.from_json(content)
    assert isinstance(caught.value, Exception) and why_unreadable(caught.value) == words


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_never_get_into_a_record(number: float) -> None:
    for numbers in ((number, 0.0, 1.0), (0.0, number, 1.0), (0.0, 0.0, number)):
        with pytest.raises(ValueError, match="Missing"):
            Measured(*numbers, n=3)
    broken = TrialRecord(
        trial="a", spec={}, sampled={}, status="completed", curves={"loss": [number]}
    )
    with pytest.raises(ValueError):
        broken.to_json()


def test_a_record_is_written_under_its_trial(tmp_path: Path) -> None:
    assert write_record(RECORD, tmp_path / "records") == "abc.json"
    path = tmp_path / "records" / "abc.json"
    assert read_record(LocalFolder(tmp_path / "records"), "abc") == RECORD
    assert read_record(LocalFolder(tmp_path / "records"), "other") is None
    assert TrialRecord.from_json(path.read_text()) == RECORD
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_atomically(tmp_path / "file", b"old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []
