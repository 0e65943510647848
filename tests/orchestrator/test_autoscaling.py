"""A sweep on a cluster that grows for it from nothing, and shrinks to nothing after it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.orchestrator.autoscaling import autoscaling_cluster
from tests.orchestrator.commands import REPOSITORY
from tests.search_spaces.writing import write_space
from trainables.record import TrialRecord

pytestmark = pytest.mark.slow

WATCH = """
import json, sys, time
import orchestrator
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    live = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    print(json.dumps(sorted(node["NodeID"] for node in live)), flush=True)
    time.sleep(0.5)
"""
"""Prints the GPU nodes that there are, twice a second. A client of its own keeps no node busy."""


def test_a_sweep_of_waiting_gpu_trials_grows_a_cluster_from_zero_and_leaves_it_at_zero(
    tmp_path: Path, pretend_environment: dict[str, str]
) -> None:
    scenarios = [{"dataset": "digits", "training": {"epochs": 1}}]
    space = write_space(tmp_path, scenarios=scenarios, search={"algorithm": "tpe", "trials": 10})
    seen = tmp_path / "nodes.jsonl"
    with (
        autoscaling_cluster(tmp_path, most_workers=2, environment=pretend_environment) as cluster,
        seen.open("w") as out,
    ):
        watch = subprocess.Popen(
            [sys.executable, "-c", WATCH, cluster.address],
            cwd=REPOSITORY, env=cluster.environment, stdout=out,
        )  # fmt: skip
        try:
            _wait_for(seen, 0)
            launched = subprocess.run(
                [
                    sys.executable, "-m", "orchestrator", "launch", "--no-audit",
                    "--space", str(space),
                    "--runs", str(tmp_path / "runs"), "--address", cluster.address,
                    "--gpus-per-trial", "1", "--max-concurrent", "4",
                ],
                cwd=REPOSITORY, env=cluster.environment, capture_output=True, text=True,
                timeout=150,
            )  # fmt: skip
            assert launched.returncode == 0, launched.stderr
            _wait_for(seen, 0)
        finally:
            watch.kill()
            watch.wait()
    counts = [len(json.loads(line)) for line in seen.read_text().splitlines()]
    assert counts[0] == 0 and max(counts) == 2 and counts[-1] == 0
    paths = (tmp_path / "runs" / "tiny" / "records").glob("*.json")
    records = [TrialRecord.from_json(path.read_text()) for path in paths]
    assert len(records) == 10
    for record in records:
        assert (record.status, record.error) == ("completed", None)
        assert record.hardware["gpus"] == 1
        assert record.hardware["device"] == "Pretended GPU"


def _wait_for(seen: Path, count: int, timeout: float = 60) -> None:
    """Wait until the last line says that there are so many GPU nodes."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        lines = seen.read_text().split("\n")
        if len(lines) > 1 and len(json.loads(lines[-2])) == count:
            return
        time.sleep(0.2)
    raise TimeoutError(f"not {count} GPU nodes within {timeout:g} s: {lines[-3:]}")
