"""Whether pairs of classes that share a poisoned twin are attacked as each is alone.

    python -m benchmarks.backdoor_sharing [--seeds 0 1] [--attacks patch blend cover] [--epochs 30]

An audit plants several pairs of classes, each with a trigger of its own, in one twin. Here each
pair is planted in a twin alone too, with the same poisoned rows and trigger, and the successes are
compared pair by pair. A twin of the digits takes some 3 seconds on one core.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from trainables.defenses import build_defense, build_stack
from trainables.storage.artefacts import ArtefactStore
from trainables.threats.backdoor.attacks import ATTACKS, AUDITED
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.backdoor.summary import pairs_of
from trainables.threats.backdoor.twin import measure_twin
from trainables.trial.context import TrialContext
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial

_RADIUS = 0.15
"""Nothing here is a size in pixels, so it has no effect."""


def compare(ctx: TrialContext, attack: str, pairs: int) -> list[tuple[str, float, float]]:
    """Return each pair with its success in a twin that it shares and in one of its own."""
    threat = Backdoor(attacks=(attack,), pairs=pairs)
    of_attack = threat._of(attack)
    rows = []
    for group in threat._groups(ctx):
        together = pairs_of(threat._attacked(ctx, attack, [group]))
        for place, (pair, shared) in enumerate(zip(group, together, strict=True)):
            twin = measure_twin(
                ctx,
                [of_attack._recipe_of(pair, place)],
                lambda recipe, data, taken: of_attack._poisoned_apart(ctx, recipe, data, taken),
            )
            (alone,) = twin.pairs
            name = f"{pair[0]} to {pair[1]}"
            rows.append((name, _share(shared.triggered), _share(alone.triggered)))
    return rows


def _share(count: tuple[int, int]) -> float:
    return count[0] / count[1]


def _context(store: Path, asked: argparse.Namespace, seed: int) -> TrialContext:
    stack = [build_defense(name, {}, radius=_RADIUS) for name in asked.defenses]
    spec = TrialSpec(
        data=DataSpec(name=asked.dataset),
        model=ModelSpec(),
        training=TrainingSpec(epochs=asked.epochs),
        stack=build_stack(stack),
        effort="audit",
        seed=seed,
    )
    return prepare_trial(spec, ArtefactStore(store), data_dir=asked.data_dir)


def report(rows: list[tuple[str, float, float]], attack: str) -> str:
    """Write the mean difference over pairs and seeds with its 95 % t interval."""
    moved = np.array([shared - alone for _, shared, alone in rows])
    half = stats.t.ppf(0.975, len(moved) - 1) * moved.std(ddof=1) / np.sqrt(len(moved))
    shared, alone = (float(np.mean([row[side] for row in rows])) for side in (1, 2))
    return (
        f"{attack:8} n = {len(rows):3} pairs: shared {shared:.3f}, alone {alone:.3f}, difference "
        f"{moved.mean():+.3f} [{moved.mean() - half:+.3f}, {moved.mean() + half:+.3f}]"
    )


def main() -> None:
    """Measure the pairs and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(AUDITED))
    parser.add_argument("--defenses", nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for attack in asked.attacks:
            rows = []
            for seed in asked.seeds:
                ctx = _context(Path(folder), asked, seed)
                for pair, shared, alone in compare(ctx, attack, asked.pairs):
                    rows.append((pair, shared, alone))
                    print(f"{attack:8} seed {seed} {pair}: {shared:.3f} {alone:.3f}", flush=True)
            print(report(rows, attack), flush=True)


if __name__ == "__main__":
    main()
