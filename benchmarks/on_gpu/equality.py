"""Whether every attack does on the device what it does on the CPU.

The same checkpoint, the same images and the same random numbers, which are all drawn on the CPU.
Two devices round otherwise: the sign of a small gradient may turn, and a search may go another way,
so that images differ while attacks are as strong. What is compared is therefore what an attack
reaches, by the CPU's network: which points it fools, and with how much loss.

Axes: N points, C channels, H, W.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.on_gpu.bench import Bench
from benchmarks.on_gpu.report import WILSON, Clock, Row, missing, one_line
from benchmarks.on_gpu.settings import Settings
from trainables.attacks import VARIANTS, Variant
from trainables.datasets import load_dataset, split_pools
from trainables.device import CPU, accelerated
from trainables.metrics import intervals
from trainables.models import build_model
from trainables.training.loop import TrainingPlan, train
from trainables.training.modes import seeded
from trainables.trial.settings import TrainingSpec

PART = "equality"
MODEL = "small_cnn"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the device may be from the CPU.

    Scores computed in float64 instead of float32 moved no point's loss by more than 4e-6 nats, and
    by 5e-4 under carlini_wagner; in bfloat16 they moved most by more than 1e-3.
    """

    differ: float
    """Share of the points that may be fooled on one of them alone, or have another loss."""
    loss: float
    """Difference of a point's loss that makes it another one: in nats, or relative above one."""


STEPPED = Tolerance(differ=0.05, loss=1e-3)
MINIMISED = Tolerance(differ=0.10, loss=1e-2)
SEARCHED = Tolerance(differ=0.15, loss=1e-3)
WALKED = Tolerance(differ=0.3, loss=math.inf)
"""By labels alone: one that rounding changes sends the whole walk another way."""


def tolerance_of(chosen: Variant) -> Tolerance:
    """Return the tolerance of an attack, by how often rounding may send it another way."""
    if chosen.entry.sees == "labels":
        return WALKED
    if chosen.score_only or chosen.attack == "autoattack":
        return SEARCHED
    return MINIMISED if chosen.minimum_norm else STEPPED


class DrawnOnCpu(TorchFunctionMode):
    """Draw every number that comes from a generator on the CPU, and move it where it is wanted.

    Two runs under such modes of one seed see the same numbers, whatever their devices.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch's, with the CPU's generator where it is given one."""
        keywords = dict(kwargs or {})
        if not isinstance(keywords.get("generator"), torch.Generator):
            return func(*args, **keywords)
        device = keywords.get("device") or CPU
        return func(*args, **(keywords | {"generator": self.generator, "device": CPU})).to(device)


@dataclass(frozen=True, slots=True, eq=False)
class Nets:
    """A checkpoint, the one that a transfer is crafted on, and points, all on one device."""

    model: nn.Module
    surrogate: nn.Module
    x: Tensor
    y: Tensor
    eps: Mapping[str, float]
    """Norm -> radius."""

    def to(self, device: torch.device) -> "Nets":
        """Return copies on a device."""
        model, surrogate = (copy.deepcopy(net).to(device) for net in (self.model, self.surrogate))
        return Nets(model, surrogate, self.x.to(device), self.y.to(device), self.eps)

    def for_autoattack(self, settings: Settings) -> "Nets":
        """Return the same with the points and radii that AutoAttack is compared at."""
        count, factor = settings.equality_autoattack_points, settings.autoattack_radius
        eps = {norm: factor * radius for norm, radius in self.eps.items()}
        return replace(self, x=self.x[:count], y=self.y[:count], eps=eps)


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """What an attack reached, judged on the CPU."""

    attacked: Tensor
    fooled: Tensor
    """(N,)"""
    loss: Tensor
    """(N,) cross-entropy of the true class, in nats."""
    length: Tensor
    """(N,) L2, in pixel units."""


def measure_equality(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield a row for each registered attack: the share of points on which both devices agree."""
    settings = bench.settings
    host = trained_nets(settings.equality_points, settings.equality_epochs)
    there = host.to(bench.device)
    for name, chosen in sorted(VARIANTS.items(), key=lambda item: item[1].attack == "autoattack"):
        if clock.left() <= 0:
            yield missing(PART, name, "share agreeing", "the time of this part is over")
            continue
        here, over_there = host, there
        if chosen.attack == "autoattack":
            here, over_there = host.for_autoattack(settings), there.for_autoattack(settings)
        keywords = settings.equality.get(chosen.attack, {})
        try:
            on_host = reach(here, host, chosen, keywords)
            on_device = reach(over_there, host, chosen, keywords)
        except Exception as error:  # one attack that a device cannot run hides no other
            reason = f"it failed: {one_line(error)}"
            yield Row(
                part=PART, name=name, unit="share agreeing",
                value=missing(PART, name, "", reason).value, passed=False,
            )  # fmt: skip
            continue
        exact = not accelerated(bench.device)
        yield compared(name, on_host, on_device, None if exact else tolerance_of(chosen))


def trained_nets(count: int, epochs: int) -> Nets:
    """Train a small network and its surrogate on the digits, on the CPU, for so many points."""
    dataset = load_dataset("digits", data_dir=None, image_size=None, device=CPU)
    pools = split_pools(dataset, "published")
    models = []
    for seed in (0, 1):
        with seeded(seed, CPU) as generator:
            model = build_model(MODEL, dataset=dataset)
            plan = TrainingPlan(
                data=pools.train,
                held_out=pools.test,
                calibration=None,
                num_classes=dataset.num_classes,
                augmentation=dataset.augmentation,
                settings=TrainingSpec(epochs=epochs),
                stack=(),
            )
            train(model, plan, generator)
        models.append(model.eval().requires_grad_(False))
    points = pools.test.select(torch.arange(min(count, len(pools.test))))
    radii = {"linf": dataset.radius, "l2": dataset.radius_l2}
    return Nets(models[0], models[1], points.images(), points.labels, radii)


def reach(nets: Nets, judge: Nets, chosen: Variant, keywords: Mapping[str, Any]) -> Reached:
    """Run an attack where its networks are, on numbers of the CPU's, and judge it by another."""
    given: dict[str, Any] = {**chosen.fixed, **keywords}
    if chosen.in_ball:
        given["eps"] = nets.eps[chosen.norm]
    if chosen.entry.sees == "surrogate":
        given["surrogate"] = nets.surrogate
    with DrawnOnCpu(0):
        generator = torch.Generator(nets.x.device).manual_seed(0)
        attacked = chosen.function(nets.model, nets.x, nets.y, generator=generator, **given)
    attacked, x, y = attacked.detach().to(CPU), nets.x.to(CPU), nets.y.to(CPU)
    with torch.no_grad():
        scores = judge.model(attacked)
    return Reached(
        attacked=attacked,
        fooled=scores.argmax(1) != y,
        loss=F.cross_entropy(scores, y, reduction="none").double(),
        length=(attacked - x).flatten(1).norm(dim=1).double(),
    )


def compared(name: str, host: Reached, device: Reached, tolerance: Tolerance | None) -> Row:
    """Return the row of an attack; without a tolerance the images must be equal, bit by bit."""
    off = (host.loss - device.loss).abs()
    allowed = STEPPED if tolerance is None else tolerance
    alike = (host.fooled == device.fooled) & (off <= allowed.loss * host.loss.clamp_min(1))
    agreeing, n = int(alike.sum()), len(alike)
    flipped = int((host.fooled != device.fooled).sum())
    longer = float(device.length.mean() - host.length.mean())
    note = (
        f"{flipped} fooled on one alone, a loss off by {float(off.max()):.1e} at most, "
        f"mean L2 by {longer:.1e}"
    )
    if tolerance is None:
        passed = torch.equal(host.attacked, device.attacked)
        note = f"CPU against CPU, {'the same images' if passed else 'OTHER images'}; {note}"
    else:
        passed = n - agreeing <= max(1.0, tolerance.differ * n)
        note = f"{note}; allowed {tolerance.differ:.0%} beyond {tolerance.loss:g} nats"
    return Row(
        part=PART, name=name, unit="share agreeing", value=intervals.proportion(agreeing, n),
        spread=WILSON, note=note, passed=passed,
    )  # fmt: skip
