"""Searches side by side on a landscape that costs nothing: hypervolumes, paired by seed."""

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from scipy import stats

from orchestrator.search.proposals import Ended, Proposals
from orchestrator.search.samplers import sampler_for
from orchestrator.search.sized import Sized
from orchestrator.search.stacks import filled_slots
from search_spaces import Space
from search_spaces.domains import Flat
from trainables.records.record import TrialRecord
from trainables.records.value import Measured

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial finds, of which a search is told."""

    metrics: Mapping[str, Measured]
    notes: Mapping[str, Any] = field(default_factory=dict)


class Landscape(Protocol):
    """What every stack of a space does."""

    def truth(self, ran: Flat) -> Floats | None:
        """Return a stack's objectives as they are judged; None where they are not believed."""

    def outcome(self, ran: Flat, generator: np.random.Generator) -> Outcome:
        """Return what a trial of a stack finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """One search on one landscape."""

    volume: float
    heights: list[int]
    """Defenses of each trial that was not among the first."""
    cut: int
    """Those of these trials of which a part was cut."""
    seconds: float
    """CPU time."""


def by_slot(sampler: Callable[[int], BaseSampler]) -> Callable[[Space, int], BaseSampler]:
    """Return a search that fills each slot on its own."""
    return lambda space, seed: sampler(seed)


def shipped(algorithm: str) -> Callable[[Space, int], BaseSampler]:
    """Return the search of that name."""

    def build(space: Space, seed: int) -> BaseSampler:
        search = space.file.search.model_copy(update={"algorithm": algorithm, "seed": seed})
        return sampler_for(replace(space, file=space.file.model_copy(update={"search": search})), 0)

    return build


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, group=True)


def _gp(space: Space, seed: int) -> BaseSampler:
    return Sized(space, GPSampler(seed=seed), seed, shortened=False)


SEARCHES: Mapping[str, Callable[[Space, int], BaseSampler]] = {
    "random": shipped("random"),
    "random_by_slot": by_slot(lambda seed: RandomSampler(seed=seed)),
    "tpe_by_slot": by_slot(_tpe),
    "tpe": shipped("tpe"),
    "nsga2": shipped("nsga2"),
    "effects": shipped("effects"),
    "gp": _gp,
}
"""`random` draws the number of defenses first; those by_slot fill each slot on its own, and are
told what was cut as well."""
USUAL = tuple(name for name in SEARCHES if name != "gp")
"""Those of seconds; Gaussian processes take a minute a search."""


def search(space: Space, sampler: BaseSampler, landscape: Landscape, seed: int) -> Searched:
    """Run all trials of a search, one after the other."""
    started, first = time.process_time(), len(space.first_draws())
    generator = np.random.default_rng([11, seed])
    ran_all: list[Flat] = []
    heights, cut = [], 0
    assert space.file.search.trials is not None
    with tempfile.TemporaryDirectory() as folder:
        proposals = Proposals(space, Path(folder) / "journal", {}, trials=space.file.search.trials)
        proposals.study.sampler = sampler
        while not isinstance(proposal := proposals.next(), Ended):
            ran = space.ran(proposal.flat)
            ran_all.append(ran)
            if len(ran_all) > first:
                heights.append(len(filled_slots(space, ran)))
                cut += ran != proposal.flat
            found = landscape.outcome(ran, generator)
            proposals.finish(
                TrialRecord(
                    trial=proposal.spec.trial,
                    spec={},
                    sampled=proposal.flat,
                    status="completed",
                    error=None,
                    metrics=dict(found.metrics),
                    notes=dict(found.notes),
                )
            )
    return Searched(
        volume=hypervolume(space, landscape, ran_all),
        heights=heights,
        cut=cut,
        seconds=time.process_time() - started,
    )


def hypervolume(space: Space, landscape: Landscape, stacks: Sequence[Flat]) -> float:
    """Return the hypervolume of stacks, of those of them whose figures are believed."""
    found = [truth for ran in stacks if (truth := landscape.truth(ran)) is not None]
    if not found:
        return 0.0
    signs = np.array([-1.0 if o.direction == "maximize" else 1.0 for o in space.objectives])
    worst = np.array([o.worst for o in space.objectives])
    return float(moocore.hypervolume(np.array(found) * signs, worst * signs))


def compare(
    space: Space, landscapes: Sequence[Landscape], searches: Sequence[str]
) -> dict[str, list[float]]:
    """Run searches on landscapes, one a seed, and print a line each; return their volumes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print("search           hypervolume   minus random [95 %]          <= 2   cut  s/search")
    volumes: dict[str, list[float]] = {}
    for name in dict.fromkeys(["random", *searches]):
        found = [
            search(space, SEARCHES[name](space, seed), landscape, seed)
            for seed, landscape in enumerate(landscapes)
        ]
        volumes[name] = [each.volume for each in found]
        print(f"{name:16} {np.mean(volumes[name]):.4f}        "
              f"{_against(volumes[name], volumes['random'])}   {_shape(found)}",
              flush=True)  # fmt: skip
    return volumes


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean difference over seeds and its 95 % interval by Student's t."""
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def _against(volumes: Sequence[float], reference: Sequence[float]) -> str:
    if volumes is reference:
        return " " * 26
    mean, low, high = paired_interval([a - b for a, b in zip(volumes, reference, strict=True)])
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def _shape(found: Sequence[Searched]) -> str:
    heights: list[Any] = [height for each in found for height in each.heights]
    low = sum(height <= 2 for height in heights) / max(1, len(heights))
    cut = sum(each.cut for each in found) / max(1, len(heights))
    return f"{low:5.0%} {cut:5.0%} {np.mean([each.seconds for each in found]):8.2f}"
