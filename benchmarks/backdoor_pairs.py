"""How well a filter removes a backdoor, over all pairs of classes: the failures included.

python -m benchmarks.backdoor_pairs [--defense spectral_signatures] [--dataset digits] [--seeds 0]

For each ordered pair (source, target) the training set is poisoned (2x2 patch in a corner, a tenth
of the target class), a twin is trained without and with the defense, and both are triggered.
Prints a row per pair and seed, then the distribution. 90 pairs of the digits take some ten minutes
on two cores.
"""

import argparse
import itertools
import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainables.artefacts import ArtefactStore
from trainables.datasets import load_dataset
from trainables.defenses import Stack, build_defense, build_stack
from trainables.metrics import Measured
from trainables.spec import DataSpec, ModelSpec, TrainingSpec, TrialSpec
from trainables.threats import build_threat
from trainables.trial import run_trial

SHOWN = (
    "clean_accuracy", "backdoor_success_rate", "poisoned_clean_accuracy", "poison_recall",
    "clean_removal_rate",
)  # fmt: skip
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Job:
    """One poisoning that is measured without and with the defense."""

    source: int
    target: int
    seed: int
    dataset: str
    data_dir: Path | None
    defense: str
    store: Path


@dataclass(frozen=True, slots=True)
class Row:
    """What came out of it."""

    job: Job
    without: tuple[float, ...]
    """Values of SHOWN."""
    defended: tuple[float, ...]


def measure(job: Job) -> Row:
    """Run both trials in this process, on one thread."""
    stack = build_stack([build_defense(job.defense, {}, radius=0.1)])
    return Row(job, _values(job, ()), _values(job, stack))


def _values(job: Job, stack: Stack) -> tuple[float, ...]:
    raw = {"source_class": job.source, "target": job.target}
    spec = TrialSpec(
        data=DataSpec(name=job.dataset),
        stack=stack,
        threats=(build_threat("backdoor", raw, radius=0.1),),
        seed=job.seed,
    )
    record = run_trial(spec, ArtefactStore(job.store), data_dir=job.data_dir, threads=1)
    if record.error:
        raise RuntimeError(f"pair {job.source}, {job.target}: {record.error}")
    found = [record.metrics[name] for name in SHOWN]
    return tuple(value.value for value in found if isinstance(value, Measured))


def report(rows: Sequence[Row], defense: str) -> str:
    """Write the distribution over pairs and seeds, and the pairs on which the defense fails."""
    without, defended = (np.array([getattr(row, side) for row in rows]) for side in
                         ("without", "defended"))  # fmt: skip
    lines = [f"{len(rows)} poisonings; quantiles {', '.join(f'{q:g}' for q in QUANTILES)}; mean"]
    for place, name in enumerate(SHOWN):
        for side, values in (("undefended", without), (defense, defended)):
            quantiles = " ".join(f"{q:6.3f}" for q in np.quantile(values[:, place], QUANTILES))
            lines.append(f"{name:24s} {side:22s} {quantiles}  {values[:, place].mean():.3f}")
    place = SHOWN.index("backdoor_success_rate")
    worked = without[:, place] >= 0.5
    halved = defended[:, place] <= without[:, place] / 2
    lines.append(
        f"{int(worked.sum())} backdoors work undefended (success >= 0.5); of these {defense} "
        f"halves {int((worked & halved).sum())} and fails on {int((worked & ~halved).sum())}:"
    )
    failed = [row.job for row, yes in zip(rows, worked & ~halved, strict=True) if yes]
    lines.append(", ".join(f"({j.source}, {j.target}) seed {j.seed}" for j in failed) or "none")
    return "\n".join(lines)


def main() -> None:
    """Measure all pairs and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--defense", default="spectral_signatures")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", nargs="+", help="such as 7,0 3,8; all where not given")
    given = parser.parse_args()
    dataset = load_dataset(given.dataset, data_dir=given.data_dir, device=torch.device("cpu"))
    pairs = list(itertools.permutations(range(dataset.num_classes), 2))
    if given.pairs:
        pairs = [(int(a), int(b)) for a, b in (pair.split(",") for pair in given.pairs)]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(source, target, seed, given.dataset, given.data_dir, given.defense, Path(folder))
            for seed in given.seeds
            for source, target in pairs
        ]
        rows = []
        print("source target seed  " + "  ".join(SHOWN) + "   (undefended | defended)", flush=True)
        with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
            for row in pool.imap(measure, jobs):
                numbers = " | ".join(
                    " ".join(f"{value:.3f}" for value in side)
                    for side in (row.without, row.defended)
                )
                print(f"{row.job.source:6d} {row.job.target:6d} {row.job.seed:4d}  {numbers}",
                      flush=True)  # fmt: skip
                rows.append(row)
    print(report(rows, given.defense))


if __name__ == "__main__":
    main()
