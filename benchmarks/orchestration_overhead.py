"""What orchestration costs a trial beyond the trial's own time, once workers are warm.

python -m benchmarks.orchestration_overhead [--trials 60]
"""

import argparse
import tempfile
from datetime import datetime
from pathlib import Path

from rich.console import Console

from orchestrator.run.paths import RunPaths
from orchestrator.search.proposals import Proposals
from orchestrator.sweep.progress import Progress
from orchestrator.sweep.resources import TrialResources
from orchestrator.sweep.sweep import SweepOptions, ray_session, run_sweep
from search_spaces import load_space
from trainables.records.record import TrialRecord

SPACE = """
name: overhead
description: The shortest real trials.
scenarios:
  - dataset: digits
    training: {epochs: 1, learning_rate: {low: 0.01, high: 0.1}}
objectives: [clean_accuracy]
search: {algorithm: tpe, trials: 1}
"""
_WARM_UP = 4
"""First trials of each worker that are left out: they import torch and load the data."""


def measure(workers: int, trials: int) -> None:
    """Run a sweep and print own time, overhead and throughput."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overhead.yaml"
        path.write_text(SPACE)
        space, paths = load_space(str(path)), RunPaths(Path(folder) / "run")
        paths.state.mkdir()
        proposals = Proposals(space, paths.journal, {}, trials=trials)
        resources = TrialResources(cpus=1, gpus=0, concurrent=workers)
        with ray_session(None):
            progress = Progress(proposals, Console(quiet=True))
            run_sweep(space, paths, proposals, resources, SweepOptions(), progress)
        _print(workers, list(proposals.finished.values()))


def _print(workers: int, records: list[TrialRecord]) -> None:
    spans = sorted(
        (_seconds(r.finished), _seconds(r.finished) - _seconds(r.started)) for r in records
    )
    warm = spans[_WARM_UP * workers :]
    wall = warm[-1][0] - warm[0][0]
    own = sum(own for _, own in warm[1:]) / (len(warm) - 1)
    each = wall * workers / (len(warm) - 1)
    print(
        f"{workers} workers, {len(warm)} warm trials: {1000 * own:.0f} ms of their own, "
        f"{1000 * (each - own):.0f} ms of orchestration a trial, "
        f"{3600 * (len(warm) - 1) / wall:,.0f} trials an hour"
    )


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def main() -> None:
    """Measure one worker and two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    trials = parser.parse_args().trials
    for workers in (1, 2):
        measure(workers, trials)


if __name__ == "__main__":
    main()
