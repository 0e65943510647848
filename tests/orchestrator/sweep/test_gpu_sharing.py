"""How trials share a GPU: a real local Ray, whose workers have a pretended one."""

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
from tests.orchestrator import greedy
from tests.pretend_gpu.install import LIBRARY_VARIABLE
from tests.search_spaces.writing import write_space
from trainables.tune import trainable

pytestmark = pytest.mark.slow

BOX = Machine(cpus=4, gpus=1)
TRIALS = 6
TOTAL_MIB = 2400
"""A trial takes some 520 with its context: three such fit on the GPU."""
TOO_MUCH_MIB = 400
"""Of tensors, over what a third of the GPU holds beside a context."""


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module", autouse=True)
def local_ray(marks: Path, pretend_environment: dict[str, str]) -> Iterator[None]:
    added = {name: pretend_environment[name] for name in ("PYTHONPATH", LIBRARY_VARIABLE)}
    ray.init(
        address="local",
        num_cpus=int(BOX.cpus),
        num_gpus=int(BOX.gpus),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={
            "env_vars": added
            | {"PRETEND_GPU_MIB": str(TOTAL_MIB), greedy.MEETING_VARIABLE: str(marks)}
        },
    )
    yield
    ray.shutdown()


def sweep(
    space: Path, *, gpus: Gpus, concurrent: int | None = None, most: float | None = None
) -> tuple[bool, Proposals, RunPaths]:
    """Run a sweep on the GPU."""
    loaded, paths = load_space(str(space)), run_paths(str(space.parent / "runs"), "tiny")
    paths.state.mkdir(parents=True, exist_ok=True)
    hours = None if most is None else GpuHours(most, [])
    proposals = Proposals(loaded, paths.journal, {}, trials=TRIALS, gpu_hours=hours)
    resources = trial_resources(BOX, cpus=1, gpus=gpus, max_concurrent=concurrent)
    progress = Progress(proposals, Console(file=io.StringIO()))
    done = run_sweep(loaded, paths, proposals, resources, SweepOptions(), progress)
    return done, proposals, paths


def greedy_space(folder: Path) -> Path:
    """Write a space of trials of one kind: one that is measured, one that is too large, others."""
    settings = [{"mib": 1}, {"mib": TOO_MUCH_MIB}]
    settings += [{"mib": mib, "meets": 2} for mib in (2, 3)] + [{"mib": mib} for mib in (4, 5)]
    return write_space(
        folder,
        scenarios=[{"dataset": "digits", "training": {"epochs": 1}}],
        defenses={greedy.NAME: {"mib": {"low": 0, "high": 900}, "meets": [0, 2]}},
        first=[{greedy.NAME: each} for each in settings],
        search={"algorithm": "random", "trials": TRIALS},
        max_stack=1,
    )


def test_trials_are_packed_by_what_the_first_one_took_and_one_that_outgrows_its_share_runs_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done, proposals, paths = sweep(greedy_space(tmp_path), gpus=AUTO)
    assert done and len(proposals.finished) == TRIALS
    records = read_records(paths).values()
    assert {(record.status, record.error) for record in records} == {("completed", None)}
    assert {record.hardware["device"] for record in records} == {"Pretended GPU"}
    given = sorted(record.hardware["gpus"] for record in records)
    # The first, the one that outgrew its share, and two or three at a time on the GPU.
    assert given[-2:] == [1.0, 1.0] and given[0] == 0.3333 and max(given[:-2]) <= 0.5
    peaks = {
        record.sampled[f"{greedy.NAME}.mib"]: record.hardware["gpu_peak_mib"] for record in records
    }
    first, large = (
        next(record for record in records if record.sampled[f"{greedy.NAME}.mib"] == mib)
        for mib in (1, TOO_MUCH_MIB)
    )
    assert first.hardware["gpus"] == large.hardware["gpus"] == 1
    assert first.hardware["gpu_total_mib"] == TOTAL_MIB
    assert peaks[TOO_MUCH_MIB] - peaks[1] == pytest.approx(TOO_MUCH_MIB, abs=64)
    (line,) = [text for text in caplog.messages if "once more on a whole one" in text]
    assert f"needs more than {given[0]:g} of a GPU's memory" in line and "out of memory" in line
    assert all("gpus" not in record.sampled for record in records)


def test_a_sweep_whose_gpu_hours_are_spent_calls_off_what_waits(
    tmp_path: Path,
) -> None:
    space = write_space(tmp_path, search={"algorithm": "random", "trials": TRIALS})
    done, proposals, paths = sweep(space, gpus=1.0, concurrent=3, most=1e-6)
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
