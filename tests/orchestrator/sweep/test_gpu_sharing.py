"""How trials share a GPU, on a real local Ray that is told of a GPU which is not there."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from rich.console import Console

from orchestrator.run.manifest import read_records
from orchestrator.run.paths import RunPaths, run_paths
from orchestrator.search.gpu_hours import GpuHours
from orchestrator.search.proposals import Proposals
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.resources import AUTO, Gpus, Machine, trial_resources
from orchestrator.sweep.sweep import SweepOptions, run_sweep
from search_spaces import load_space
from tests.orchestrator import fake_gpu
from tests.orchestrator.command_line import REPOSITORY
from tests.search_spaces.writing import write_space
from trainables.tune import trainable

pytestmark = pytest.mark.slow

BOX = Machine(cpus=4, gpus=1)
TRIALS = 6


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module", autouse=True)
def local_ray(marks: Path) -> Iterator[None]:
    variables = {"PYTHONPATH": str(REPOSITORY), fake_gpu.FOLDER_VARIABLE: str(marks)}
    ray.init(
        address="local",
        num_cpus=int(BOX.cpus),
        num_gpus=int(BOX.gpus),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": variables, "worker_process_setup_hook": fake_gpu.install},
    )
    yield
    ray.shutdown()


def sweep(
    folder: Path, *, gpus: Gpus, concurrent: int | None = None, most: float | None = None
) -> tuple[bool, Proposals, RunPaths]:
    """Run a sweep of six short trials that differ in their epochs."""
    scenarios = [{"dataset": "digits", "training": {"epochs": list(range(1, TRIALS + 1))}}]
    path = write_space(
        folder, scenarios=scenarios, defenses={}, search={"algorithm": "grid"}, max_stack=0
    )
    space, paths = load_space(str(path)), run_paths(str(folder / "runs"), "tiny")
    paths.state.mkdir(parents=True, exist_ok=True)
    hours = None if most is None else GpuHours(most, [])
    proposals = Proposals(space, paths.journal, {}, trials=None, gpu_hours=hours)
    resources = trial_resources(BOX, cpus=1, gpus=gpus, max_concurrent=concurrent)
    progress = Progress(proposals, Console(file=io.StringIO()))
    done = run_sweep(space, paths, proposals, resources, SweepOptions(), progress)
    return done, proposals, paths


def test_trials_are_packed_by_what_the_first_one_took_and_one_that_outgrows_its_share_runs_again(
    tmp_path: Path, marks: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done, proposals, paths = sweep(tmp_path, gpus=AUTO)
    assert done and len(proposals.finished) == TRIALS
    records = read_records(paths).values()
    assert {record.status for record in records} == {"completed"}
    given = sorted(record.hardware["gpus"] for record in records)
    # The first, the one that outgrew its share, and two at a time on the GPU.
    assert given == [0.5, 0.5, 0.5, 0.5, 1.0, 1.0]
    first = min(records, key=lambda record: record.started)
    assert first.hardware["gpus"] == 1
    assert first.hardware["gpu_peak_mib"] == fake_gpu.PEAK_MIB
    assert (marks / fake_gpu.OUTGREW).exists()
    (line,) = [text for text in caplog.messages if "once more on a whole one" in text]
    assert "needs more than 0.5 of a GPU's memory" in line and "out of memory" in line
    assert all("gpus" not in record.sampled for record in records)


def test_a_sweep_whose_gpu_hours_are_spent_calls_off_what_waits(
    tmp_path: Path,
) -> None:
    done, proposals, paths = sweep(tmp_path, gpus=1.0, concurrent=3, most=1e-6)
    assert done and not proposals.live
    assert len(proposals.finished) == len(read_records(paths)) == 1
    assert proposals.ended is not None and "GPU hours are spent" in proposals.ended.reason
    (record,) = proposals.finished.values()
    assert record.status == "completed" and record.hardware["gpus"] == 1


@pytest.mark.parametrize(("gpus", "visible"), [(0, ""), (1, "0")])
def test_a_trial_has_the_gpu_that_it_was_given_and_no_other_and_a_thread_for_each_cpu(
    gpus: float, visible: str, tmp_path: Path
) -> None:
    space = load_space(str(write_space(tmp_path)))
    run_one = trainable(space, run=tmp_path / "run", threads=2)

    def watched(config: dict[str, Any]) -> None:
        import torch  # counted where the trial ran

        run_one(config)
        seen = [os.environ.get("CUDA_VISIBLE_DEVICES", "all"), torch.get_num_threads()]
        (tmp_path / "seen").write_text(json.dumps(seen))

    grid = tune.Tuner(
        tune.with_resources(watched, {"cpu": 2, "gpu": gpus}),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert not grid.errors
    assert json.loads((tmp_path / "seen").read_text()) == [visible, 2]
