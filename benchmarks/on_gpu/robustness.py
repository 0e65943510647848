"""Accuracy of the adversarially trained network under attack, on the points that fit the time."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.on_gpu.bench import Bench
from benchmarks.on_gpu.report import Clock, Row, missing, share_row
from trainables.attacks import attack
from trainables.attacks.shared.batching import BATCH
from trainables.device import synchronize

_FEWEST = 8
"""Points that are worth another call."""
_RESERVE = 0.7
"""Share of the time left that a call is planned to fill."""
_CE_PASSES, _LATER_PASSES, _QUERIES = 100, 900 + 1800, 5000
"""Passes to and fro of AutoAttack's apgd-ce; of its apgd-t and fab-t, over nine targets; and the
passes without a gradient of its square. The later ones are of the points that resist the first."""


def attacked_rows(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield the accuracy under FGSM, PGD-20 and AutoAttack at the standard radius."""
    _, model = bench.checkpoint()
    x, y = bench.points(bench.settings.attacked_points)
    eps, generator, resist = bench.dataset.radius, bench.generator(), 0
    for name in ("fgsm", "pgd"):
        attacked = attack(name)(model, x, y, eps=eps, generator=generator)
        resist = int(right(model, attacked, y).sum())
        yield _row(bench, f"accuracy under {name} at {eps:.4f}", resist, len(y), "")
    if eps != bench.autoattack_eps:
        eps = bench.autoattack_eps
        attacked = attack("pgd")(model, x, y, eps=eps, generator=generator)
        resist = int(right(model, attacked, y).sum())
    name = f"accuracy under autoattack at {eps:.4f}"
    count = _points_that_fit(model, x, y, resist / len(y), clock)
    if count == 0:
        yield missing("A1", name, "share", f"it does not fit into {clock.left():.0f} s")
        return
    withstood, done, started = 0, 0, time.perf_counter()
    while count > 0:
        rows = slice(done, done + count)
        attacked = attack("autoattack")(model, x[rows], y[rows], eps=eps, generator=generator)
        withstood += int(right(model, attacked, y[rows]).sum())
        done += count
        bench.autoattack_point_s = (time.perf_counter() - started) / done
        fitting = int(_RESERVE * max(0.0, clock.left()) / bench.autoattack_point_s)
        # No more than before at once: what a point takes holds for calls of that size.
        count = min(fitting, count, len(y) - done)
        count = 0 if count < _FEWEST else count
    pace = f"{1 / (bench.autoattack_point_s or 1):.3g} images/s"
    fitted = "" if done == len(y) else f"; as many of {len(y)} points as fitted"
    yield _row(bench, name, withstood, done, pace + fitted)


def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return which images (N,) a network classifies right."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in torch.split(x, BATCH)]) == y


def _points_that_fit(model: nn.Module, x: Tensor, y: Tensor, resisting: float, clock: Clock) -> int:
    """Return how many points AutoAttack gets through, judged by passes of the sizes it will run."""
    count = len(y)
    while count >= min(_FEWEST, len(y)):
        at_once, calls = min(count, BATCH), -(-count // BATCH)
        left = round(resisting * at_once)
        seconds = _CE_PASSES * _pass_s(model, x[:at_once], y[:at_once], gradient=True)
        if left > 0:
            seconds += _LATER_PASSES * _pass_s(model, x[:left], y[:left], gradient=True)
            seconds += _QUERIES * _pass_s(model, x[:left], y[:left], gradient=False)
        if calls * seconds < _RESERVE * clock.left():
            return count
        count //= 2
    return 0


def _pass_s(model: nn.Module, x: Tensor, y: Tensor, *, gradient: bool) -> float:
    """Return what one pass takes in seconds, the second of two."""
    seconds = 0.0
    for _ in range(2):
        synchronize(x.device)
        started = time.perf_counter()
        images = x.clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            loss = F.cross_entropy(model(images), y)
            if gradient:
                torch.autograd.grad(loss, images)
        synchronize(x.device)
        seconds = time.perf_counter() - started
    return seconds


def _row(bench: Bench, name: str, withstood: int, n: int, note: str) -> Row:
    if bench.synthetic:
        pace = f" ({note})" if note else ""
        return missing("A1", name, "share", bench.synthetic + pace)
    return share_row("A1", name, withstood, n, note=note)
