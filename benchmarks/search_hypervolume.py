"""Which search finds the better trade-offs: hypervolumes on a modelled landscape, paired by seed.

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
was cut as well. `benchmarks.search_recorded` compares the searches on trials that were run.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.searches import SEARCHES, USUAL, Floats, Outcome, compare
from orchestrator.search.encoding import Encoding
from search_spaces import Overrides, Space, load_space
from search_spaces.domains import Flat
from trainables.records.value import Measured

EFFECTS = Path(__file__).with_name("search_effects.json")
_SETTING = 0.6
"""Standard deviation, as a share of an effect, of what a setting changes from end to end."""
_OVERLAP = 0.5
"""Share of the smaller effect that two alike lose together."""
_TRAINING = 0.2
"""Standard deviation, in logits, of one training to another."""


class Modelled:
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

    def truth(self, ran: Flat) -> Floats:
        """Return the objectives that a stack has on average."""
        points = self.encoding.points([ran])
        present, settings = points.present[0], points.settings[0]
        line = self.base.copy()
        for part, names in enumerate(self.encoding.parts):
            if present[part]:
                moved = (settings[names, None] - 0.5) * self.slopes[names]
                line += self.effects[part] * np.exp(moved.sum(0))
        line += np.einsum("p,dpq,q->d", present, self.pairs, present)
        found: Floats = expit(line)
        return found

    def outcome(self, ran: Flat, generator: np.random.Generator) -> Outcome:
        """Measure a stack once: another training, on so many images."""
        truth = self.truth(ran)
        line = np.log(truth / (1 - truth)) + _TRAINING * generator.standard_normal(len(truth))
        found = {}
        for name, share, items in zip(self.objectives, expit(line), self.items, strict=True):
            value = generator.binomial(items, share) / items
            found[name] = Measured(float(value), float(value), float(value), items)
        return Outcome(metrics=found)


def main() -> None:
    """Run every search on every landscape, and print a line a search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=42)
    parser.add_argument("--pairs", type=float, default=0.5)
    parser.add_argument("--searches", default=",".join(USUAL), help=f"of {', '.join(SEARCHES)}")
    asked = parser.parse_args()
    space = load_space("full", Overrides(trials=asked.trials))
    landscapes = [Modelled(space, asked.pairs, seed) for seed in range(asked.seeds)]
    print(f"{asked.trials} trials, {asked.seeds} seeds, pairs {asked.pairs:g}")
    compare(space, landscapes, asked.searches.split(","))


if __name__ == "__main__":
    main()
