"""Workers, nodes, drivers and builders that are killed for real; trials that cannot count."""

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from optuna.trial import TrialState

from tests.orchestrator.command_line import REPOSITORY, end, run, start, wait_for
from tests.orchestrator.processes import descendants, kill_all
from tests.orchestrator.sweep.test_sweep import records_of, study_of
from tests.search_spaces.writing import write_space
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.tune import ActorLease

pytestmark = pytest.mark.slow

KILLS = 10
SEED = 7
MOMENTS = (0.5, 10.0)
"""Seconds after its start between which a driver is killed: as Ray starts, and as trials run."""
TRIALS = 40


class FakeCluster:
    """A Ray of several nodes on this machine, in a process of its own that takes commands."""

    def __init__(self, folder: Path, nodes: int) -> None:
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        # A folder of its own: Ray leaves its address in the usual one, for whoever looks for a Ray
        # there next. A short one: the paths of sockets may have about a hundred letters.
        self.scratch = tempfile.mkdtemp(prefix="ray")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.orchestrator.fake_cluster", str(nodes)],
            cwd=REPOSITORY,
            env=os.environ | self.environment | {"RAY_TMPDIR": self.scratch},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.address = self._answer()

    def order(self, *words: str) -> str:
        """Have something done and give the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End every process of the cluster."""
        kill_all([*descendants(self.process.pid), self.process.pid])
        self.process.wait(timeout=30)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # Ray says things of its own
            if line.startswith("answer: "):
                return line.removeprefix("answer: ").strip()
        raise AssertionError("the cluster ended")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    fake = FakeCluster(tmp_path, nodes=3)
    yield fake
    fake.close()


def check_whole(folder: Path, trials: int) -> None:
    """Check that each of so many trials was recorded and told once, and that none still runs."""
    records = records_of(folder)
    assert len(records) == trials
    assert {record.trial for record in records.values()} == set(records)
    assert [r.error for r in records.values() if r.status != "completed"] == []
    specs = {json.dumps(record.spec, sort_keys=True) for record in records.values()}
    assert len(specs) == trials
    study = study_of(folder)
    tally = Counter(trial.state for trial in study)
    assert tally[TrialState.RUNNING] == tally[TrialState.WAITING] == 0
    # A draw that repeats a finished trial is told its result: a spec may stand there twice.
    told = {trial.user_attrs["trial"] for trial in study if trial.state == TrialState.COMPLETE}
    assert told == set(records)
    assert not list(folder.glob("records/*.corrupt"))


def test_a_worker_and_two_nodes_die_and_no_trial_is_lost_or_run_into_the_count_twice(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    scenarios = [{"dataset": "digits", "training": {"epochs": 4}}]
    path = write_space(tmp_path, scenarios=scenarios, search={"algorithm": "random", "trials": 24})
    folder = tmp_path / "runs" / "tiny"

    def recorded(count: int) -> None:
        wait_for(lambda: len(list(folder.glob("records/*.json"))) >= count, f"{count} records", 240)

    driver = start(
        "launch", "--no-audit", "--space", str(path), "--runs", str(tmp_path / "runs"),
        "--address", cluster.address, environment=cluster.environment,
    )  # fmt: skip
    try:
        recorded(3)
        assert cluster.order("kill", "worker") == "killed"
        recorded(6)
        assert cluster.order("kill", "node") == "killed"
        recorded(9)
        assert cluster.order("end", "node") == "ended"  # SIGTERM, as a spot node gets it
        output, errors = driver.communicate(timeout=240)
    finally:
        kill_all([driver.pid])
    assert driver.returncode == 0, output + errors
    check_whole(folder, 24)


def test_a_driver_killed_at_ten_moments_leaves_the_records_of_an_undisturbed_sweep(
    tmp_path: Path,
) -> None:
    path = write_space(tmp_path, search={"algorithm": "tpe", "trials": TRIALS})
    arguments = ("launch", "--no-audit", "--space", str(path), "--runs", str(tmp_path / "runs"))
    folder = tmp_path / "runs" / "tiny"
    draw = random.Random(SEED)
    # Spread evenly, so that ten are enough to meet every phase, and each moved at random.
    low, high = MOMENTS
    step = (high - low) / KILLS
    moments = [low + step * (place + draw.random()) for place in range(KILLS)]
    draw.shuffle(moments)
    kept: dict[str, str] = {}
    for moment in moments:
        driver = start(*arguments)
        time.sleep(moment)
        assert driver.poll() is None, "it had finished before it could be killed"
        children = descendants(driver.pid)
        end(driver, signal.SIGKILL)
        kill_all(children)
        for name, text in kept.items():
            assert (folder / "records" / name).read_text() == text
        kept = {file.name: file.read_text() for file in folder.glob("records/*.json")}
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    check_whole(folder, TRIALS)
    assert not list(folder.glob("study.journal.unreadable-*"))


def test_an_artefact_whose_builder_is_killed_is_built_by_the_other_within_the_lease(
    tmp_path: Path,
) -> None:
    ttl = 3.0
    started = tmp_path / "started"

    @ray.remote(num_cpus=1, max_retries=0)
    def need(who: str, seconds: float) -> str:
        def build() -> Artefact:
            (tmp_path / who).write_text(str(os.getpid()))
            started.touch()
            time.sleep(seconds)
            return Artefact(values={"who": who})

        store = ArtefactStore(tmp_path / "artefacts", ActorLease("builders", ttl=ttl))
        (tmp_path / f"{who}-asks").touch()
        return str(store.get_or_build("model", {"same": 1}, build).values["who"])

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    # Held here, as a sweep's driver does: the actor ends with the process that first asked for it.
    claims = ActorLease("builders", ttl=ttl)
    try:
        first = need.remote("first", 600.0)
        wait_for(started.exists, "the first builder")
        second = need.remote("second", 0.0)
        wait_for((tmp_path / "second-asks").exists, "the second builder")
        time.sleep(2 * ttl)  # the first renews its claim: the other waits
        assert not (tmp_path / "second").exists()
        os.kill(int((tmp_path / "first").read_text()), signal.SIGKILL)
        killed = time.time()
        assert ray.get(second, timeout=60) == "second"
        assert (tmp_path / "second").stat().st_mtime - killed < ttl + 2
        with pytest.raises(ray.exceptions.RayError):
            ray.get(first, timeout=30)
    finally:
        del claims
        ray.shutdown()
