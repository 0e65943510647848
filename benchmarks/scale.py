"""What the driver costs at thousands of trials, and what more nodes bring. No trial trains.

    python -m benchmarks.scale [--trials 10000] [--space full] [--keep FOLDER]
    python -m benchmarks.scale --nodes 1,2,4,8 [--seconds 60]

The first runs the real sweep (Ray Tune, proposals, records, live table, eviction) over trials that
only write a record of the size of a real one and an artefact, then `status` and `report`
on what came out, and resumes it. The second starts that many fake nodes of two CPUs on this
machine, whose trials sleep for a second, and counts trials an hour.
"""

import argparse
import base64
import os
import random
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ray import tune
from rich.console import Console

from orchestrator.run.manifest import read_records, write_manifest
from orchestrator.run.paths import RunPaths
from orchestrator.search.proposals import Proposal, Proposals
from orchestrator.sweep import sweep
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.resources import TrialResources
from search_spaces import Space, load_space
from trainables.metrics import METRICS
from trainables.records.record import TrialRecord, write_record
from trainables.records.value import Measured, MetricValue
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.trial.given import sampled_of
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import stage_versions
from trainables.tune import SpaceLike

_POINTS = 270
_EPOCHS = 30
_METRICS = 120
"""As many as a trial of the full space measures."""
_ATTACKS = ("none", "clean", "fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd")
_EVERY = 1000
_NODE_CPUS = 2


def main() -> None:
    """Measure the driver at so many trials, or so many nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--space", default="full")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="Folder for the run, which is then kept.")
    parser.add_argument("--nodes", help="Counts of fake nodes, such as 1,2,4,8.")
    parser.add_argument("--seconds", type=float, default=60, help="Sleeping trials, per count.")
    asked = parser.parse_args()
    if asked.nodes:
        # One for all counts: Ray reads it once in a process.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for count in map(int, asked.nodes.split(",")):
            measure_nodes(count, asked.seconds)
        return
    with _folder(asked.keep) as folder:
        measure_driver(load_space(asked.space), folder / "scale", asked.trials, asked.workers)


def measure_driver(space: Space, root: Path, trials: int, workers: int) -> None:
    """Run trials that do nothing; print what the driver and the commands took."""
    paths = RunPaths(root)
    root.mkdir(parents=True)
    write_manifest(paths, space, command="benchmarks.scale", trials=trials, data_title="digits")
    proposals = _Timed(space, paths.journal, {}, trials=trials)
    print(f"{'trials':>8}{'wall':>9}{'CPU':>8}{'suggest':>10}{'95 %':>8}{'RSS':>9}")
    print(f"{'':8}{'ms/trial':>9}{'ms/trial':>8}{'median ms':>10}{'ms':>8}{'MiB':>9}")
    with sweep.ray_session(None), patch.object(sweep, "trainable", _no_op):
        progress = _Printing(proposals)
        resources = TrialResources(cpus=1, gpus=0, concurrent=workers)
        sweep.run_sweep(space, paths, proposals, resources, sweep.SweepOptions(), progress)
    progress.sum_up()
    size = sum(path.stat().st_size for path in (root / "records").iterdir()) / 2**20
    print(f"{len(proposals.finished):,} records, {size:,.0f} MiB")
    del proposals, progress
    for command in ("status", "report"):
        _time_command(command, root)
    page = (root / "report" / "index.html").stat().st_size / 2**20
    print(f"the report's page has {page:.1f} MiB")
    started = time.perf_counter()
    records = read_records(paths)
    read = time.perf_counter()
    again = Proposals(space, paths.journal, records, trials=trials)
    opened = time.perf_counter()
    print(f"resume: records read in {read - started:.1f} s, journal in {opened - read:.1f} s")
    paths.journal.unlink()
    del again
    started = time.perf_counter()
    Proposals(space, paths.journal, records, trials=trials)
    print(f"a lost journal is rebuilt in {time.perf_counter() - started:.1f} s")


def measure_nodes(count: int, seconds: float) -> None:
    """Run trials of one second on so many fake nodes; print trials an hour."""
    from ray.cluster_utils import Cluster

    workers = count * _NODE_CPUS
    trials = int(seconds * workers)
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(num_cpus=_NODE_CPUS, object_store_memory=80 * 2**20)
        with _folder(None) as folder, sweep.ray_session(cluster.address):
            space, paths = load_space("full"), RunPaths(folder / "nodes")
            (folder / "nodes").mkdir()
            proposals = _Written(space, paths, trials)
            with patch.object(sweep, "trainable", _sleeping):
                resources = TrialResources(cpus=1, gpus=0, concurrent=workers)
                progress = _Printing(proposals)
                sweep.run_sweep(space, paths, proposals, resources, sweep.SweepOptions(), progress)
        # Workers start up at different moments; what counts is the middle of the sweep.
        ends = progress.ends[2 * workers : -workers]
        rate = 3600 * (len(ends) - 1) / (ends[-1] - ends[0])
        print(
            f"{count} nodes, {workers} trials at once: {rate:,.0f} trials an hour, "
            f"{rate / (3600 * workers):.0%} of {3600 * workers:,}",
            flush=True,
        )
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


class _Timed(Proposals):
    """Proposals that note how long each took."""

    seconds: list[float]

    def next(self) -> Any:
        """Time a proposal."""
        started = time.perf_counter()
        found = super().next()
        self.__dict__.setdefault("seconds", []).append(time.perf_counter() - started)
        return found


class _Written(Proposals):
    """Proposals whose trials need not write a record: it is there before they begin."""

    def __init__(self, space: Space, paths: RunPaths, trials: int) -> None:
        super().__init__(space, paths.journal, {}, trials=trials)
        self.paths = paths

    def next(self) -> Any:
        """Write the record of a proposal."""
        found = super().next()
        if isinstance(found, Proposal):
            write_record(plausible_record(found.spec, found.flat), self.paths.records)
        return found


class _Printing(Progress):
    """A live table on a terminal of its own, and a line every thousand trials."""

    def __init__(self, proposals: Proposals) -> None:
        sink = open(os.devnull, "w")  # noqa: SIM115 - open as long as the sweep
        super().__init__(proposals, Console(file=sink, force_terminal=True))
        self.ends: list[float] = []
        self.marks = [self._mark()]

    def note(self, record: TrialRecord) -> None:
        """Print where a thousand more have finished."""
        super().note(record)
        self.ends.append(time.perf_counter())
        if len(self.ends) % _EVERY == 0:
            self.marks.append(self._mark())
            (before, cpu_before, _), (now, cpu, resident) = self.marks[-2:]
            asked = sorted(getattr(self.proposals, "seconds", [0.0])[-_EVERY:])
            print(
                f"{len(self.ends):8,}{1000 * (now - before) / _EVERY:9.1f}"
                f"{1000 * (cpu - cpu_before) / _EVERY:8.1f}"
                f"{1000 * statistics.median(asked):10.1f}"
                f"{1000 * asked[int(0.95 * len(asked))]:8.1f}{resident:9.0f}",
                file=sys.__stdout__,  # the live table takes the other one
                flush=True,
            )

    def sum_up(self) -> None:
        """Print the whole: cost, and growth of memory from the first thousand to the last."""
        if len(self.marks) < 3:
            return
        (first, cpu_first, _), (_, _, warm), (last, cpu_last, end) = (
            self.marks[0], self.marks[1], self.marks[-1],
        )  # fmt: skip
        count = _EVERY * (len(self.marks) - 1)
        print(
            f"driver: {1000 * (last - first) / count:.1f} ms a trial (start of Ray included), "
            f"{1000 * (cpu_last - cpu_first) / count:.1f} ms of CPU; memory grows by "
            f"{1024 * (end - warm) / (count - _EVERY):.1f} KiB a trial"
        )

    @staticmethod
    def _mark() -> tuple[float, float, float]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * resource.getpagesize() / 2**20
        return time.perf_counter(), time.process_time(), resident


def plausible_record(spec: TrialSpec, sampled: Mapping[str, Any]) -> TrialRecord:
    """Return a completed record whose numbers depend on the spec alone, as large as a real one."""
    draw = random.Random(spec.trial)
    strength = draw.random()  # what it gains in robustness it loses in accuracy
    names = [*METRICS]
    for threat in spec.threats:
        names += [name for name in threat.metric_names() if name not in METRICS]
    metrics: dict[str, MetricValue] = {name: _share(draw.random()) for name in names[:_METRICS]}
    metrics |= {
        "clean_accuracy": _share(0.97 - 0.3 * strength**2 - 0.2 * draw.random() ** 2),
        "robust_accuracy": _share(0.2 + 0.5 * strength - 0.2 * draw.random() ** 2),
        "membership_auc": _share(0.62 - 0.1 * strength + 0.05 * draw.random()),
        "backdoor_success_rate": _share(draw.random()),
        "masking_suspected": _share(0.0),
    }
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return TrialRecord(
        trial=spec.trial,
        spec=spec.canonical(),
        sampled=dict(sampled),
        status="completed",
        metrics=metrics,
        curves={
            f"{pool}_{what}": [draw.random() for _ in range(_EPOCHS)]
            for pool in ("train", "validation")
            for what in ("loss", "accuracy")
        },
        timings={"training": draw.random(), "evasion": draw.random()},
        artefacts={"model": f"model-{spec.trial}"},
        notes=_notes(draw),
        stage_versions=stage_versions(),
        started=now,
        finished=now,
    )


def _notes(draw: random.Random) -> dict[str, Any]:
    def picture() -> str:
        return base64.b64encode(draw.randbytes(64)).decode()

    images = [
        {"label": label, "before": label, "after": draw.randrange(10)}
        | {"clean": picture(), "attacked": picture()}
        for label in range(10)
    ]
    classes = [
        {"label": label, "network": draw.randrange(10), "svm": draw.randrange(10)}
        | {kind: picture() for kind in ("mean", "training", "reconstruction")}
        for label in range(10)
    ]
    edges = [place / 40 for place in range(41)]
    members, others = ([draw.randrange(1, 50) for _ in range(40)] for _ in range(2))
    scores = {"edges": edges, "members": members, "non_members": others}
    return {
        "evasion": {
            "points": _POINTS,
            "broken_by": draw.choices(_ATTACKS, k=_POINTS),
            "broken_by_l2": draw.choices(_ATTACKS, k=_POINTS),
            "masking": {"suspected": False, "strikes": False, "words": ""},
            "pictures": {"attack": "pgd", "shape": [8, 8, 1], "images": images},
            "adaptive": True,
            "surfaces": [{"kind": "exact", "draws": 1, "detector_aware": False}],
            "stochastic": False,
            "rejects": draw.random() < 0.3,
        },
        "membership": {"attack": "loss_threshold", "scores": scores},
        "backdoor": {
            "poisoned_rows": 9, "training_rows": 897, "share_of_target_class": 0.1,
            "row_scores": {},
        },
        "inversion": {"pictures": {"shape": [8, 8, 1], "classes": classes}},
    }  # fmt: skip


def _share(value: float) -> Measured:
    return Measured(value, max(0.0, value - 0.04), min(1.0, value + 0.04), _POINTS)


def _no_op(space: SpaceLike, *, run: Path | str, **_: Any) -> Callable[[dict[str, Any]], None]:
    """Stand in for trainables.tune.trainable: nothing is trained, all else happens."""

    def run_one(config: dict[str, Any]) -> None:
        record = plausible_record(space.spec(config), sampled_of(config))
        store = ArtefactStore(Path(run) / "artefacts")
        weights = Artefact(tensors={"weights": torch.zeros(8)})
        store.get_or_build("model", {"trial": record.trial}, lambda: weights)
        key = store.key("model", {"trial": record.trial})
        write_record(replace(record, artefacts={"model": key}), Path(run) / "records")
        tune.report({"trial": record.trial, "status": record.status})

    return run_one


def _sleeping(space: SpaceLike, **_: Any) -> Callable[[dict[str, Any]], None]:
    """Stand in for trainables.tune.trainable: a second of sleep, without torch."""
    del space

    def run_one(config: dict[str, Any]) -> None:
        del config
        time.sleep(1)
        tune.report({"status": "completed"})

    return run_one


def _time_command(command: str, root: Path) -> None:
    started = time.perf_counter()
    program = [sys.executable, "-m", "orchestrator", command, str(root)]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    print(f"{command}: {time.perf_counter() - started:.1f} s", flush=True)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    with nullcontext(keep) if keep is not None else tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
