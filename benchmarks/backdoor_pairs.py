"""How well a filter removes a backdoor, over all pairs of classes: the failures included.

    python -m benchmarks.backdoor_pairs [--defense spectral_signatures] [--seeds 0] [--pairs 7,0]

For each ordered pair (source, target) the training set is poisoned (2x2 patch in a corner, a tenth
of the target class), a twin is trained without and with the defense, and both are triggered.
Prints a row per pair and seed, then the distributions, the pairs on which the defense fails, and
what it costs where nothing is poisoned. A poisoning of the digits takes two trainings, some 8
seconds on one core.
"""

import argparse
import itertools
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainables.datasets import load_dataset
from trainables.defenses import Defense, Stack, build_defense, build_stack
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import build_threat
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial

SUCCESS = "backdoor_success_rate"
OF_THE_TWIN = (SUCCESS, "poisoned_clean_accuracy", "poison_recall", "clean_removal_rate")
UNPOISONED = "clean_accuracy"
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
WORKS = 0.5
"""Success from which a backdoor is said to work."""
_RADIUS = 0.1
"""Nothing here is a size in pixels, so it has no effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One poisoning that is measured without and with the defense."""

    source: int
    target: int
    seed: int
    asked: argparse.Namespace
    store: Path

    def __str__(self) -> str:
        return f"({self.source}, {self.target}) seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Row:
    """What came out of it: metrics by name."""

    job: Job
    without: Mapping[str, Measured]
    defended: Mapping[str, Measured]


def measure(job: Job) -> Row:
    """Run both trials in this process, on one thread."""
    stack = build_stack(
        [build_defense(job.asked.defense, dict(job.asked.settings), radius=_RADIUS)]
    )
    return Row(job, _measured(job, Stack()), _measured(job, stack))


def _measured(job: Job, stack: Stack[Defense]) -> dict[str, Measured]:
    raw = {"source_class": job.source, "target": job.target}
    spec = TrialSpec(
        data=DataSpec(name=job.asked.dataset),
        model=ModelSpec(),
        training=TrainingSpec(epochs=job.asked.epochs),
        stack=stack,
        threats=(build_threat("backdoor", raw, radius=_RADIUS),),
        seed=job.seed,
    )
    record = run_trial(spec, ArtefactStore(job.store), data_dir=job.asked.data_dir, threads=1)
    if record.error:
        raise RuntimeError(f"pair {job}: {record.error}")
    return {name: value for name, value in record.metrics.items() if isinstance(value, Measured)}


def report(rows: Sequence[Row], defense: str) -> str:
    """Write the distributions over pairs and seeds, the failures, and the cost without poison."""
    first = rows[0].defended
    lines = [
        f"n = {len(rows)} poisonings, of the first {first['poison_recall'].n} poisoned rows and "
        f"{first[SUCCESS].n} triggered images; mean, then quantiles {QUANTILES}"
    ]
    for name in OF_THE_TWIN:
        for side, found in (("undefended", [row.without for row in rows]),
                            (defense, [row.defended for row in rows])):  # fmt: skip
            values = np.array([metrics[name].value for metrics in found])
            quantiles = " ".join(f"{q:.3f}" for q in np.quantile(values, QUANTILES))
            lines.append(f"{name:24} {side:22} {values.mean():.3f}  {quantiles}")
    return "\n".join([*lines, *_failures(rows, defense), *_clean_cost(rows, defense)])


def _failures(rows: Sequence[Row], defense: str) -> list[str]:
    """Name the poisonings that work undefended and whose success the defense does not halve."""
    worked = [row for row in rows if row.without[SUCCESS].value >= WORKS]
    failed = [row for row in worked if row.defended[SUCCESS].value > row.without[SUCCESS].value / 2]
    return [
        f"{len(worked)} of {len(rows)} backdoors work undefended (success >= {WORKS}); {defense} "
        f"at least halves {len(worked) - len(failed)} of them and fails on {len(failed)}: "
        + (", ".join(str(row.job) for row in failed) or "none")
    ]


def _clean_cost(rows: Sequence[Row], defense: str) -> list[str]:
    """Compare the unpoisoned models, of which there is one pair a seed."""
    seeds = {row.job.seed: row for row in rows}
    without, defended = (
        np.array([getattr(row, side)[UNPOISONED].value for row in seeds.values()])
        for side in ("without", "defended")
    )
    return [
        f"no poison: {UNPOISONED} {without.mean():.3f} undefended, {defended.mean():.3f} with "
        f"{defense}, loss {100 * (without - defended).mean():.1f} points (n = {len(seeds)} seeds, "
        f"{rows[0].without[UNPOISONED].n} images)"
    ]


def _line(row: Row) -> str:
    sides = [
        " ".join(f"{metrics[name].value:.3f}" for name in (*OF_THE_TWIN, UNPOISONED))
        for metrics in (row.without, row.defended)
    ]
    return f"{row.job.source:6} {row.job.target:6} {row.job.seed:4}  {' | '.join(sides)}"


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--defense", default="spectral_signatures")
    parser.add_argument(
        "--settings", type=_setting, nargs="*", default=[], help="such as removal_fraction=0.1"
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", nargs="+", help="such as 7,0 3,8; all where not given")
    return parser.parse_args()


def main() -> None:
    """Measure the pairs and print them."""
    asked = _arguments()
    dataset = load_dataset(
        asked.dataset, data_dir=asked.data_dir, image_size=None, device=torch.device("cpu")
    )
    pairs = list(itertools.permutations(range(dataset.num_classes), 2))
    if asked.pairs:
        pairs = [(int(a), int(b)) for a, b in (pair.split(",") for pair in asked.pairs)]
    print(f"source target seed  {' '.join((*OF_THE_TWIN, UNPOISONED))} (undefended | defended)")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(source=source, target=target, seed=seed, asked=asked, store=Path(folder))
            for seed in asked.seeds
            for source, target in pairs
        ]
        with multiprocessing.get_context("spawn").Pool(asked.workers) as pool:
            for row in pool.imap(measure, jobs):
                print(_line(row), flush=True)
                rows.append(row)
    print(report(rows, asked.defense))


if __name__ == "__main__":
    main()
