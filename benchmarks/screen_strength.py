"""How much kinder the screen's attacks are than AutoAttack, under every registered defense.

    python -m benchmarks.screen_strength [--defenses "none; input_transformation:kind=jpeg"]
        [--seeds 2] [--points N] [--epochs 30] [--effort screen|audit] [--store FOLDER]

Prints robust accuracy on the embedded digits at the standard Linf radius, on the same points and
nets: the effort's worst case against AutoAttack through every surface, judged by the deployed
model. A detector, of which AutoAttack knows nothing, is also attacked with an audit's
detector_aware_pgd. Parameters are those with which the space `full` starts, else the defaults; an
effort attacks as many points as it does by itself, unless --points says otherwise. The screen
should be kinder by ALLOWANCE at most. A verdict compares the allowance with the difference and with
the lower end of its 95 % interval, which is of the points and not of the trainings.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from search_spaces import load_space
from trainables.defenses import DEFENSES, build_defense, build_stack
from trainables.deployed.predictor import Predictor, ask
from trainables.records.value import Measured
from trainables.storage.artefacts import ArtefactStore
from trainables.threats.evasion.attacking import Attacker
from trainables.threats.evasion.efforts import settings_of
from trainables.threats.evasion.evasion import HEADLINE, Evasion
from trainables.threats.evasion.points import points_for
from trainables.threats.evasion.target import target_of
from trainables.training.evaluation import in_batches
from trainables.trial.context import TrialContext
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import prepare_trial

RADIUS = 0.15
ALLOWANCE = 0.012
"""What the screen may be kinder by, as a share of points; an audit by nothing."""
_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, slots=True)
class Case:
    """A defense with its parameters."""

    defense: str
    raw: dict[str, Any]

    @property
    def label(self) -> str:
        """Its name and parameters, as `trial --defense` takes them."""
        given = ",".join(f"{name}={value}" for name, value in self.raw.items())
        return f"{self.defense}:{given}" if given else self.defense


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What two attackers left of the same points of one net."""

    effort: Tensor
    """(N,) robust by all attacks of the effort."""
    reference: Tensor
    """(N,) robust by AutoAttack."""
    effort_seconds: float
    reference_seconds: float


def cases() -> list[Case]:
    """List every registered defense alone: as the space `full` starts with it, or by default."""
    first = [(name, raw or {}) for stack in load_space("full").file.first
             for name, raw in stack.items() if len(stack) == 1]  # fmt: skip
    documented = {name for name, _ in first}
    listed: list[tuple[str, dict[str, Any]]] = [
        (name, {}) for name in DEFENSES if name not in documented
    ] + first
    order = list(DEFENSES)
    return [Case(name, raw) for name, raw in sorted(listed, key=lambda case: order.index(case[0]))]


def paired_difference(outcomes: Sequence[Outcome]) -> Measured:
    """Return the mean difference over all points of some nets, with its 95 % interval.

    Half a point is added to each of the four kinds of pairs. Source: Agresti and Min, 2005.
    """
    effort = torch.cat([outcome.effort for outcome in outcomes])
    reference = torch.cat([outcome.reference for outcome in outcomes])
    n = len(effort)
    kinder, harder = int((effort & ~reference).sum()), int((reference & ~effort).sum())
    centre = (kinder - harder) / (n + 2)
    variance = (kinder + harder + 1) / (n + 2) - centre**2
    half = _Z * math.sqrt(variance / (n + 2))
    return Measured((kinder - harder) / n, centre - half, centre + half, n)


def verdict(difference: Measured, allowance: float) -> str:
    """Return how a difference compares with what is allowed."""
    if difference.low > allowance:
        return "TOO KIND"
    return "fine" if difference.value <= allowance + 1e-9 else "above, within noise"


def compare(ctx: TrialContext, points: int | None = None) -> Outcome:
    """Train the net of a context, and attack it with its effort and with AutoAttack."""
    model = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed).model
    predictor = ctx.deploy(ctx.spec.stack, model)
    started = time.perf_counter()
    found = Evasion(points=points, extent=HEADLINE).measure(predictor, ctx)
    between = time.perf_counter()
    reference = _by_autoattack(predictor, ctx, points)
    ended = time.perf_counter()
    effort = found.outcomes["robust_accuracy"]
    return Outcome(effort, reference, between - started, ended - between)


def _by_autoattack(predictor: Predictor, ctx: TrialContext, asked: int | None) -> Tensor:
    """Return which points (N,) withstand AutoAttack, and where they are right without it."""
    points = points_for(predictor, ctx, asked)
    target = target_of(predictor, points, ctx)
    attacker = Attacker(target, points, ctx, settings_of("audit", target))
    generator, classes = ctx.generator("benchmark"), ctx.dataset.num_classes
    answers = in_batches(lambda x: ask(predictor, x, generator, classes).label, points)
    robust = answers.eq(points.labels)
    names = ("autoattack", "detector_aware_pgd") if predictor.rejects else ("autoattack",)
    for name in names:
        robust = robust & attacker.run(name, eps=ctx.dataset.radius).withstood
    return robust


def main() -> None:
    """Train the nets, attack each both ways and print a line a defense."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--defenses", help="names or lines of the table, separated by ;")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--points", type=int)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--effort", choices=("screen", "audit"), default="screen")
    parser.add_argument("--store", type=Path, help="a folder that keeps the trained nets")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    allowance = 0.0 if asked.effort == "audit" else ALLOWANCE
    head = f"{'defense':60}    n  {asked.effort:>7}  AutoAttack  kinder by, points       seconds"
    print(head)
    with tempfile.TemporaryDirectory() as folder:
        store = ArtefactStore(asked.store or Path(folder))
        for case in _chosen(asked.defenses):
            outcomes = [
                compare(_context(case, seed, asked.epochs, asked.effort, store), asked.points)
                for seed in range(asked.seeds)
            ]
            print(_line(case, outcomes, allowance), flush=True)


def _chosen(asked: str | None) -> list[Case]:
    if asked is None:
        return cases()
    wanted = {word.strip() for word in asked.split(";")}
    known = {word for case in cases() for word in (case.defense, case.label)}
    if wanted - known:
        raise SystemExit(f"unknown: {', '.join(sorted(wanted - known))}")
    return [case for case in cases() if wanted & {case.defense, case.label}]


def _context(case: Case, seed: int, epochs: int, effort: str, store: ArtefactStore) -> TrialContext:
    spec = TrialSpec(
        data=DataSpec(),
        model=ModelSpec(),
        training=TrainingSpec(epochs=epochs),
        stack=build_stack([build_defense(case.defense, case.raw, radius=RADIUS)]),
        effort="audit" if effort == "audit" else "screen",
        seed=seed,
    )
    return prepare_trial(spec, store, device=torch.device("cpu"))


def _line(case: Case, outcomes: Sequence[Outcome], allowance: float) -> str:
    effort = torch.cat([outcome.effort for outcome in outcomes]).double()
    reference = torch.cat([outcome.reference for outcome in outcomes]).double()
    found = paired_difference(outcomes)
    by = f"{100 * found.value:5.1f} [{100 * found.low:5.1f}, {100 * found.high:5.1f}]"
    first = sum(outcome.effort_seconds for outcome in outcomes)
    second = sum(outcome.reference_seconds for outcome in outcomes)
    return (
        f"{case.label:60} {found.n:4}  {float(effort.mean()):7.4f}  "
        f"{float(reference.mean()):10.4f}  {by:19}  {first:6.1f} {second:7.1f}  "
        f"{verdict(found, allowance)}"
    )


if __name__ == "__main__":
    main()
