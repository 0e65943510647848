"""Runs in a real S3 server on loopback: launched, resumed, read back; and what is refused."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import results
from orchestrator.commands.doctor import storage
from orchestrator.run import heartbeat
from orchestrator.run.heartbeat import beating
from orchestrator.run.manifest import refuse_other_space
from orchestrator.run.paths import RunPaths, check_writable, run_paths
from results.errors import ResultsError
from tests.object_store import Fault, ObjectStore, object_store
from tests.orchestrator.command_line import run
from tests.orchestrator.test_cli import call
from tests.results.run_folders import manifest, record
from tests.search_spaces.writing import write_space
from trainables.errors import InputError
from trainables.storage.folders import RemoteFolder, open_folder

SECRET = "us3r:hunter2%2Fsecret"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """Run one server for all tests of the file."""
    with object_store() as store:
        yield store


@pytest.fixture
def store(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    """Return the server without faults, and a machine that has kept nothing yet."""
    monkeypatch.setenv("DEFENSE_SWEEP_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DEFENSE_SWEEP_CACHE", str(tmp_path / "cache"))
    server.faults.clear()
    server.requests.clear()
    yield server
    server.faults.clear()


def _far(store: ObjectStore, place: str) -> RemoteFolder:
    folder = open_folder(store.uri(place), attempts=2)
    assert isinstance(folder, RemoteFolder)
    return folder


@pytest.mark.slow
def test_a_sweep_in_a_store_is_extended_after_its_journal_was_lost_and_read_from_its_uri(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = str(write_space(tmp_path, search={"algorithm": "random", "trials": 2}))
    runs = store.uri("sweeps").replace("s3://", f"s3://{SECRET}@")
    store.faults += [
        Fault("503", "PUT", "records/", 1),
        Fault("cut request", "PUT", "artefacts/", 1),
        Fault("cut answer", "GET", "records/", 1),
    ]
    first = run("launch", "--no-audit", "--space", space, "--runs", runs)
    assert first.returncode == 0, first.stderr
    assert all(fault.times == 0 for fault in store.faults)
    where = store.uri("sweeps/tiny")
    assert first.stdout.splitlines()[-1] == f"Report: {store.uri('sweeps/tiny/report/index.html')}"
    before = store.objects("sweeps/tiny")
    kept = {name: content for name, content in before.items() if name.startswith("records/")}
    assert len(kept) == 2 and {"manifest.json", "trials.parquet"} <= before.keys()
    assert not [name for name in before if name.rpartition("/")[2].startswith(".driver")]
    assert json.loads(before["manifest.json"])["command"].count("s3://bucket/sweeps?") == 1

    shutil.rmtree(tmp_path / "state")
    shutil.rmtree(tmp_path / "cache")
    more = run("launch", "--no-audit", "--space", space, "--runs", runs, "--trials", "3")
    assert more.returncode == 0, more.stderr
    after = store.objects("sweeps/tiny")
    records = {name: content for name, content in after.items() if name.startswith("records/")}
    assert len(records) == 3 and kept.items() <= records.items()
    (journal,) = (tmp_path / "state").glob("tiny-*/study.journal")
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(journal)))
    )
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE] * 3

    status = run("status", where)
    assert status.returncode == 0 and "3 of 3 trials done, 0 failed" in status.stdout
    report = run("report", where)
    assert report.returncode == 0 and report.stdout.splitlines() == more.stdout.splitlines()[-1:]
    loaded = results.load(where)
    assert len(loaded.records) == 3 and len(loaded.trials()) == 3

    secret = where.replace("s3://", f"s3://{SECRET}@")
    audited = run("audit", secret, "--candidates", "1", "--seeds", "1")
    assert audited.returncode == 0, audited.stderr
    assert audited.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    audit = results.load(where).audit
    assert audit is not None and len(audit.records) == audit.manifest["trials"] == 2
    _assert_secret_is_nowhere(store, [first, more, status, report, audited], tmp_path)


def _assert_secret_is_nowhere(
    store: ObjectStore, calls: list[subprocess.CompletedProcess[str]], folder: Path
) -> None:
    told = [text for done in calls for text in (done.stdout, done.stderr)]
    held = [*store.objects().values(), *(p.read_bytes() for p in folder.rglob("*") if p.is_file())]
    names = [*store.objects(), *(str(path) for path in folder.rglob("*"))]
    assert not [text for text in [*told, *names] if "hunter2" in text]
    assert not [content for content in held if b"hunter2" in content]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ("ftp://bucket/runs", "unknown scheme 'ftp'"),
        ("s3://", "names no bucket"),
        ("s3://k:hunter2/x", "names no bucket"),
        ("nowhere", "no such bucket"),
        ("forbidden", "access is refused"),
        (
            "s3://bucket/r?scheme=http&region=us-east-1&endpoint_override=127.0.0.1:9",
            "did not do it in 3 tries",
        ),
        (
            "s3://bucket/r?scheme=http&region=us-east-1&endpoint_override=no.such.host.invalid:9",
            "did not do it in 3 tries",
        ),
    ],
)
def test_a_place_that_no_run_can_be_written_to_is_one_line_and_exit_2(
    runs: str,
    words: str,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if runs == "nowhere":
        runs = store.uri("runs", bucket="nowhere")
    elif runs == "forbidden":
        runs = store.uri("forbidden")
        store.faults.append(Fault("403", "PUT", times=1000))
    space = str(write_space(tmp_path))
    assert call(monkeypatch, "launch", "--no-audit", "--space", space, "--runs", runs) == 2
    told = capsys.readouterr()
    assert words in told.err and "--runs" in told.err and "hunter2" not in told.err
    assert told.err.count("\n") == 1 and told.out == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"tiny.yaml"}
    assert store.objects("forbidden") == {}


def test_a_store_that_can_be_written_to_is_left_as_it_was(store: ObjectStore) -> None:
    check_writable(store.uri("probed"))
    assert store.objects("probed") == {}
    found = storage(store.uri("probed"))
    assert found.good and "can be written to" in found.found
    assert store.objects("probed") == {}
    store.faults.append(Fault("403", "PUT", times=1000))
    refused = storage(store.uri("probed"))
    assert not refused.good and "access is refused" in refused.found


def test_what_a_run_writes_into_a_store_stays_below_its_name(store: ObjectStore) -> None:
    with pytest.raises(InputError, match="no path"):
        run_paths(store.uri("runs"), "../escape")
    paths = run_paths(store.uri("runs").replace("s3://", f"s3://{SECRET}@"), "first")
    assert paths.name == "first" and paths.shown == store.uri("runs/first")
    assert paths.records.uri == store.uri("runs/first/records")
    assert paths.state == run_paths(store.uri("runs"), "first").state
    assert paths.state.parent.name == "state"
    assert "hunter2" not in repr(paths)


def test_a_second_driver_is_refused_until_the_first_ends_or_falls_silent(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SETTLE_SECONDS", 0.0)
    here, there = tmp_path / "here", tmp_path / "there"
    folder = _far(store, "driven")
    with beating(folder, here):
        words = "another launch is running this sweep on"
        with pytest.raises(InputError, match=words), beating(folder, there):
            pytest.fail("two drivers")
        assert store.objects("driven").keys() == {".driver.json"}
    assert store.objects("driven") == {}
    store.put("driven/.driver.json", json.dumps({"holder": "x", "lock": "y"}).encode())
    with pytest.raises(InputError, match="If it was killed, wait"), beating(folder, here):
        pytest.fail("two drivers")
    monkeypatch.setattr(heartbeat, "DEAD_SECONDS", 1.0)
    time.sleep(2.1)  # the store tells whole seconds
    with beating(folder, here):
        assert json.loads(store.objects("driven")[".driver.json"])["holder"] != "x"


def test_a_driver_of_this_machine_that_was_killed_is_taken_over_from_at_once(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SETTLE_SECONDS", 0.0)
    folder = _far(store, "killed")
    with beating(folder, tmp_path):
        dead = store.objects("killed")[".driver.json"]
    store.put("killed/.driver.json", dead)
    with beating(folder, tmp_path):
        assert store.objects("killed")[".driver.json"] != dead


def test_a_driver_ends_where_another_took_its_run_over_and_bears_a_store_that_fails(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    folder = _far(store, "lost")
    # A Tune that ran in this process before may have left its own handler.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), beating(folder, tmp_path):
            store.faults.append(Fault("403", "PUT", ".driver", times=3))
            time.sleep(1.5)
            assert store.faults[0].times == 0
            for _ in range(100):  # a beat that was under way may overwrite the first
                store.put("lost/.driver.json", json.dumps({"holder": "x", "lock": "y"}).encode())
                time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert json.loads(store.objects("lost")[".driver.json"])["holder"] == "x"


def _put_run(store: ObjectStore, place: str, count: int) -> None:
    store.put(f"{place}/manifest.json", json.dumps(manifest()).encode())
    for number in range(count):
        row = json.dumps(record(f"t{number}")).encode()
        store.put(f"{place}/records/t{number}.json", row)


def test_only_records_that_are_new_are_read_again_and_those_gone_are_dropped(
    store: ObjectStore, tmp_path: Path
) -> None:
    _put_run(store, "read", 5)
    uri = store.uri("read")
    assert [single.trial for single in results.load(uri).records] == [f"t{n}" for n in range(5)]
    store.put("read/records/t5.json", json.dumps(record("t5")).encode())
    store.put("read/records/t0.json", b"{")
    store.put("read/records/.hidden.json", b"{")
    store.direct().delete_file("bucket/read/records/t1.json")
    store.requests.clear()
    loaded = results.load(uri)
    assert [single.trial for single in loaded.records] == ["t2", "t3", "t4", "t5"]
    assert [name for name, _ in loaded.corrupt] == ["t0.json"]
    assert store.count("GET", "/records/") == 2
    assert results.write_report(uri) == loaded.path / "report" / "index.html"
    there = store.objects("read")
    assert there["report/index.html"] == (loaded.path / "report" / "index.html").read_bytes()
    assert "report/figures/hypervolume.svg" in there and "trials.parquet" in there
    store.put("read/report/figures/old.svg", b"<svg/>")
    results.write_report(uri)
    assert "report/figures/old.svg" not in store.objects("read")


def test_records_are_read_many_at_a_time(store: ObjectStore) -> None:
    _put_run(store, "many", 40)
    store.faults.append(Fault("slow", "GET", "/records/", times=40, seconds=0.5))
    started = time.monotonic()
    assert len(results.load(store.uri("many")).records) == 40
    assert store.faults[0].times == 0
    assert time.monotonic() - started < 0.5 * 40 / 2


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_run_that_cannot_be_read_is_one_line_and_exit_2(
    command: str,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = store.uri("nothing").replace("s3://", f"s3://{SECRET}@")
    for uri, words in (
        (secret, "no run at"),
        (store.uri("nothing", bucket="nowhere"), "no run at"),
        (f"s3://{SECRET}@bucket/run?secret=hunter2", "is not the URI of a run"),
        (f"ftp://{SECRET}@bucket/run", "is not the URI of a run"),
        (store.uri("nothing/../../x"), "has '..' in it"),
    ):
        assert call(monkeypatch, command, uri) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1 and "hunter2" not in told
    store.faults.append(Fault("403", "GET", times=1000))
    with pytest.raises(ResultsError, match="the storage cannot be used"):
        results.load(store.uri("nothing"))


def test_a_difference_is_told_shortly(tmp_path: Path) -> None:
    old = {"max_stack": 2, "slots": {"labels": ["label_smoothing"] * 100}, "text": "x" * 5000}
    new = {"max_stack": 1, "slots": {"labels": []}, "text": "y"}
    with pytest.raises(InputError) as caught:
        refuse_other_space(RunPaths(tmp_path), old, new)
    told = str(caught.value)
    assert "max_stack: 2 there, 1 here" in told
    assert 'slots.labels: ["label_smoothing", "label_smoothing",' in told and ".. there" in told
    assert len(told) < 500
