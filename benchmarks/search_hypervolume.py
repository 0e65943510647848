"""Which search finds the better trade-offs: hypervolumes on a landscape, paired by seed.

    python -m benchmarks.search_hypervolume [--seeds 20] [--trials 42] [--pairs 0.5] [--searches ..]

The landscape has the defenses and settings of the space `full` and its trials that come first, and
costs nothing: what a stack does is, in logits, the sum of its defenses' effects
(search_effects.json, which says how it was made), of what every two of them change together, and of
the settings. Two that move an objective the same way move it by half of the smaller effect less
together; around that, what a pair changes is drawn anew for every seed, as is what settings change,
so that a seed is another landscape. `--pairs` is the standard deviation of the former, as a share
of the geometric mean of the two effects. A trial is measured with the luck of a training and of its
images; the hypervolume is that of the true values of all trials. `random` is the search at random
that draws the number of defenses first; those by_slot fill each slot on its own, and are told what
was cut as well.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from scipy import stats
from scipy.special import expit

from orchestrator.search.encoding import Encoding
from orchestrator.search.proposals import Ended, Proposals
from orchestrator.search.samplers import sampler_for
from orchestrator.search.sized import Sized
from orchestrator.search.stacks import filled_slots
from search_spaces import Overrides, Space, load_space
from search_spaces.domains import Flat
from trainables.records.record import TrialRecord
from trainables.records.value import Measured

Floats = NDArray[np.float64]
EFFECTS = Path(__file__).with_name("search_effects.json")
_SETTING = 0.6
"""Standard deviation, as a share of an effect, of what a setting changes from end to end."""
_OVERLAP = 0.5
"""Share of the smaller effect that two alike lose together."""
_TRAINING = 0.2
"""Standard deviation, in logits, of one training to another."""


class Landscape:
    """What every stack does, for one seed."""

    def __init__(self, space: Space, pairs: float, seed: int) -> None:
        plain = json.loads(EFFECTS.read_text())
        self.objectives: list[str] = plain["objectives"]
        self.items: list[int] = plain["items"]
        self.encoding = Encoding(space)
        generator = np.random.default_rng([7, seed])
        effects = np.array([plain["effects"][name] for name in space.domains])
        self.base = np.array(plain["undefended"])
        self.effects = np.concatenate([np.zeros((1, len(self.base))), effects])
        one, other = self.effects[:, None], self.effects[None]
        size = np.sqrt(abs(one * other))
        alike = np.where(one * other > 0, np.sign(one), 0.0)
        overlap = _OVERLAP * alike * np.minimum(abs(one), abs(other))
        changed = pairs * size * generator.standard_normal(size.shape) - overlap
        self.pairs = np.triu(changed.transpose(2, 0, 1), 1)
        self.slopes = _SETTING * generator.standard_normal((self.encoding.width, len(self.base)))

    def truth(self, flat: Flat) -> Floats:
        """Return the objectives that a stack has on average."""
        points = self.encoding.points([flat])
        present, settings = points.present[0], points.settings[0]
        line = self.base.copy()
        for part, names in enumerate(self.encoding.parts):
            if present[part]:
                moved = (settings[names, None] - 0.5) * self.slopes[names]
                line += self.effects[part] * np.exp(moved.sum(0))
        line += np.einsum("p,dpq,q->d", present, self.pairs, present)
        found: Floats = expit(line)
        return found

    def measure(self, truth: Floats, generator: np.random.Generator) -> list[Measured]:
        """Measure a stack once: another training, on so many images."""
        line = np.log(truth / (1 - truth)) + _TRAINING * generator.standard_normal(len(truth))
        found = []
        for share, items in zip(expit(line), self.items, strict=True):
            value = generator.binomial(items, share) / items
            found.append(Measured(float(value), float(value), float(value), items))
        return found


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


def search(space: Space, sampler: BaseSampler, landscape: Landscape, seed: int) -> Searched:
    """Run all trials of a search, one after the other."""
    started, first = time.process_time(), len(space.first_draws())
    generator = np.random.default_rng([11, seed])
    truths, heights, cut = [], [], 0
    assert space.file.search.trials is not None
    with tempfile.TemporaryDirectory() as folder:
        proposals = Proposals(space, Path(folder) / "journal", {}, trials=space.file.search.trials)
        proposals.study.sampler = sampler
        while not isinstance(proposal := proposals.next(), Ended):
            ran = space.ran(proposal.flat)
            truths.append(landscape.truth(ran))
            if len(truths) > first:
                heights.append(len(filled_slots(space, ran)))
                cut += ran != proposal.flat
            values = landscape.measure(truths[-1], generator)
            proposals.finish(
                TrialRecord(
                    trial=proposal.spec.trial,
                    spec={},
                    sampled=proposal.flat,
                    status="completed",
                    error=None,
                    metrics=dict(zip(landscape.objectives, values, strict=True)),
                )
            )
    signs = np.array([-1.0 if o.direction == "maximize" else 1.0 for o in space.objectives])
    worst = np.array([o.worst for o in space.objectives])
    volume = float(moocore.hypervolume(np.array(truths) * signs, worst * signs))
    return Searched(volume=volume, heights=heights, cut=cut, seconds=time.process_time() - started)


def paired_interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean difference over seeds and its 95 % interval by Student's t."""
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def main() -> None:
    """Run every search on every landscape, and print a line a search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=42)
    parser.add_argument("--pairs", type=float, default=0.5)
    parser.add_argument("--searches", default=",".join(SEARCHES))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    space = load_space("full", Overrides(trials=asked.trials))
    landscapes = [Landscape(space, asked.pairs, seed) for seed in range(asked.seeds)]
    print(f"{asked.trials} trials, {asked.seeds} seeds, pairs {asked.pairs:g}")
    print("search           hypervolume   minus random [95 %]          <= 2   cut  s/search")
    reference: list[float] = []
    for name in dict.fromkeys(["random", *asked.searches.split(",")]):
        found = [
            search(space, SEARCHES[name](space, seed), landscape, seed)
            for seed, landscape in enumerate(landscapes)
        ]
        volumes = [each.volume for each in found]
        reference = reference or volumes
        print(f"{name:16} {np.mean(volumes):.4f}        {_against(volumes, reference)}   "
              f"{_shape(found)}", flush=True)  # fmt: skip


def _against(volumes: Sequence[float], reference: Sequence[float]) -> str:
    if volumes == reference:
        return " " * 26
    mean, low, high = paired_interval([a - b for a, b in zip(volumes, reference, strict=True)])
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def _shape(found: Sequence[Searched]) -> str:
    heights: list[Any] = [height for each in found for height in each.heights]
    low = sum(height <= 2 for height in heights) / max(1, len(heights))
    cut = sum(each.cut for each in found) / max(1, len(heights))
    return f"{low:5.0%} {cut:5.0%} {np.mean([each.seconds for each in found]):8.2f}"


if __name__ == "__main__":
    main()
