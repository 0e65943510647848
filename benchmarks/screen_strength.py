"""How much kinder the screen's attacks are than AutoAttack, on nets of three trainings.

    python -m benchmarks.screen_strength [--seeds 3] [--points 270] [--epochs 30]

Prints robust accuracy on the embedded digits at the standard Linf radius: the screen's worst case
against AutoAttack on the same points. The screen should be within two points and one image of it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from trainables.attacks import attack
from trainables.defenses import build_defense, build_stack
from trainables.deployed.predictor import Predictor
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.threats.evasion.evasion import Evasion
from trainables.trial.context import TrialContext
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial

RADIUS = 0.15
ALLOWANCE = 0.02
NETS: dict[str, dict[str, object]] = {
    "none": {},
    "fgsm_adversarial_training": {"eps": RADIUS},
    "pgd_adversarial_training": {"eps": RADIUS, "steps": 7},
}


def main() -> None:
    """Train the nets, attack each both ways and print a line a net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--points", type=int, default=270)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--effort", choices=("screen", "audit"), default="screen")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'net':28} seed   n  {asked.effort} (s)        AutoAttack (s)     verdict")
    with tempfile.TemporaryDirectory() as folder:
        store = ArtefactStore(Path(folder))
        for name in NETS:
            for seed in range(asked.seeds):
                ctx = _context(name, seed, asked.epochs, asked.points, asked.effort, store)
                _compare(name, seed, ctx, asked.effort)


def _context(
    name: str, seed: int, epochs: int, points: int, effort: str, store: ArtefactStore
) -> TrialContext:
    spec = TrialSpec(
        data=DataSpec(measured_images=points),
        model=ModelSpec(),
        training=TrainingSpec(epochs=epochs),
        stack=build_stack([build_defense(name, NETS[name], radius=RADIUS)]),
        effort="audit" if effort == "audit" else "screen",
        seed=seed,
    )
    return prepare_trial(spec, store, device=torch.device("cpu"))


def _compare(name: str, seed: int, ctx: TrialContext, effort: str) -> None:
    model = ctx.train(ctx.spec.stack, ctx.pools.train, seed).model
    predictor, points = Predictor(model), ctx.points()
    started = time.perf_counter()
    worst = Evasion().measure(predictor, ctx).metrics["robust_accuracy"]
    between = time.perf_counter()
    assert isinstance(worst, Measured)
    attacked = attack("autoattack")(
        model, points.images(), points.labels, eps=RADIUS, generator=ctx.generator("benchmark")
    )
    ended = time.perf_counter()
    with torch.no_grad():
        oracle = float((model(attacked).argmax(1) == points.labels).double().mean())
    limit = oracle if effort == "audit" else oracle + ALLOWANCE + 1 / len(points)
    verdict = "fine" if worst.value <= limit + 1e-9 else "TOO KIND"
    print(
        f"{name:28} {seed:4} {len(points):4}  {worst.value:.4f} ({between - started:5.1f})"
        f"    {oracle:.4f} ({ended - between:5.1f})    {verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()
