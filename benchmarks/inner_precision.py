"""Whether adversarial training may craft its examples in bfloat16, as it trains on a GPU.

    python -m benchmarks.inner_precision [--seeds 3] [--points 270] [--epochs 30] [--train-images N]

Trains small_cnn on the embedded digits three times a seed: all in float32; in bfloat16 throughout,
as under autocast on a GPU; and in bfloat16 with float32 examples. Prints the robust accuracy under
the screen's two strongest attacks at the standard Linf radius, measured in float32, and the
differences from float32 on the same points, as Markdown.

bfloat16 is rounded to here, since few CPUs compute in it and the others take ten times as long: the
operands and results of convolutions and products, and the gradients of both, which is where a GPU's
autocast rounds in this network. Sums are float32, as on a GPU.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from results.statistics.paired import Floats, paired_bootstrap
from trainables.attacks.pgd import pgd
from trainables.attacks.targeted_margin_pgd import targeted_margin_pgd
from trainables.datasets import LabelledImages
from trainables.defenses import DEFENSES, build_defense, build_stack
from trainables.device import CPU
from trainables.storage.artefacts import ArtefactStore
from trainables.training import loop as training
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial

RADIUS = 0.15
NETS: Mapping[str, Mapping[str, object]] = {
    "fgsm_adversarial_training": {"eps": RADIUS},
    "pgd_adversarial_training": {"eps": RADIUS, "steps": 7},
    "trades": {"eps": RADIUS, "steps": 5},
}
_ROUNDED = {F.conv2d, F.linear}


class _Rounding(TorchFunctionMode):
    """Rounds to bfloat16 before and after convolutions and products, and so do their gradients."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if func not in _ROUNDED:
            return func(*args, **named)
        return _round(func(*map(_round, args), **{k: _round(v) for k, v in named.items()}))


def _round(value: Any) -> Any:
    # The cast back rounds the gradient.
    return value.bfloat16().float() if isinstance(value, Tensor) else value


@contextmanager
def rounded_to_bfloat16(device: torch.device) -> Iterator[None]:
    """Compute on the CPU what a GPU computes under autocast to bfloat16."""
    del device
    with _Rounding():
        yield


@contextmanager
def unrounded(device: torch.device) -> Iterator[None]:
    """Compute in float32 inside `rounded_to_bfloat16`."""
    del device
    with torch._C.DisableTorchFunction():
        yield


Precision = Callable[[torch.device], AbstractContextManager[None]]
ARMS: Mapping[str, tuple[Precision, Precision]] = {
    "float32": (unrounded, unrounded),
    "bfloat16": (rounded_to_bfloat16, rounded_to_bfloat16),
    "bfloat16, float32 examples": (rounded_to_bfloat16, unrounded),
}
"""Name -> the precision of the forward pass that is trained on, and that of the examples."""


@contextmanager
def precision_of(name: str, trained: Precision, crafted: Precision) -> Iterator[None]:
    """Train in one precision and have a defense craft its views in another."""
    defense = DEFENSES[name]
    views = defense.views

    @wraps(views)
    def within(*given: Any, **named: Any) -> Any:
        with crafted(CPU):
            return views(*given, **named)

    with (
        mock.patch.object(training, "training_precision", trained),
        mock.patch.object(defense, "views", within),
    ):
        yield


def main() -> None:
    """Train and attack every net and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--points", type=int, default=270)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--nets", nargs="+", choices=tuple(NETS), default=tuple(NETS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| defense | precision | robust accuracy, by seed | mean | minus float32 (95 %) |")
    print("|---|---|---|--:|---|")
    data = DataSpec(measured_images=asked.points, train_images=asked.train_images)
    for net in asked.nets:
        found: dict[str, list[Floats]] = {arm: [] for arm in ARMS}
        for seed in range(asked.seeds):
            for arm in ARMS:
                found[arm].append(_outcomes(net, arm, seed, data, asked.epochs))
        outcomes = {arm: np.stack(by_seed) for arm, by_seed in found.items()}
        for arm, outcomes_KN in outcomes.items():
            print(_row(net, arm, outcomes_KN, outcomes["float32"]), flush=True)


def _outcomes(net: str, arm: str, seed: int, data: DataSpec, epochs: int) -> Floats:
    """Train a net in an arm's precisions; return on which points (N,) it is robust, 0 or 1."""
    spec = TrialSpec(
        data=data,
        model=ModelSpec(),
        training=TrainingSpec(epochs=epochs),
        stack=build_stack([build_defense(net, NETS[net], radius=RADIUS)]),
        seed=seed,
    )
    started = time.perf_counter()
    # A store for each: the precision is not part of a training's identity.
    with tempfile.TemporaryDirectory() as folder:
        ctx = prepare_trial(spec, ArtefactStore(Path(folder)), device=CPU)
        with precision_of(net, *ARMS[arm]):
            model = ctx.train(spec.stack, ctx.pools.train, seed).model
    robust_N = _robust(model, ctx.points(), ctx.generator("benchmark"))
    seconds = time.perf_counter() - started
    print(f"<!-- {net}, {arm}, seed {seed}: {robust_N.mean():.3f}, {seconds:.0f} s -->", flush=True)
    return robust_N


def _robust(model: nn.Module, points: LabelledImages, generator: torch.Generator) -> Floats:
    """Attack with PGD, and what withstands it with the targeted margin attack."""
    x, y = points.images(), points.labels
    robust = torch.ones(len(points), dtype=torch.bool)
    model.requires_grad_(False)
    for attack in (pgd, targeted_margin_pgd):
        attacked = attack(model, x[robust], y[robust], eps=RADIUS, steps=20, generator=generator)
        with torch.no_grad():
            robust[robust.clone()] = model(attacked).argmax(1) == y[robust]
    return robust.double().numpy()


def _row(net: str, arm: str, outcomes_KN: Floats, plain_KN: Floats) -> str:
    by_seed = ", ".join(f"{100 * seed_N.mean():.1f}" for seed_N in outcomes_KN)
    gap = paired_bootstrap(outcomes_KN, plain_KN)
    said = f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    if arm == "float32":
        said = ""
    return f"| {net} | {arm} | {by_seed} | {100 * outcomes_KN.mean():.1f} | {said} |"


if __name__ == "__main__":
    main()
