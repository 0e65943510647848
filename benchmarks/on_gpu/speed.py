"""How fast attacks and certificates are, compared with other libraries in the same run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.on_gpu.bench import Bench
from benchmarks.on_gpu.report import RANGE, Clock, Row, missing, one_line, readings, share_row
from benchmarks.on_gpu.rivals import PGD_STEPS, Run, Runs, Subject, autoattack_runs, pgd_runs
from benchmarks.on_gpu.robustness import right
from trainables.defenses.certified.randomized_smoothing import (
    RandomizedSmoothing,
    SmoothedPredictor,
)
from trainables.deployed.predictor import REFUSED, Predictor
from trainables.device import synchronize
from trainables.metrics import intervals
from trainables.records.value import Missing

PART = "attacks"
_WEAKER = 0.01
"""Share of the points by which more may withstand ours than another's: the draws differ."""
_SLOWER = 1.5
"""A run is begun where this many times the last one's seconds are left."""


@dataclass(slots=True, eq=False)
class Timed:
    """What one library's attack took and made."""

    seconds: list[float] = field(default_factory=list)
    attacked: Tensor | None = None
    missing: str | None = None


def measure_attacks(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield images per second and accuracy under PGD-20 and AutoAttack, ours and others."""
    name, model = bench.checkpoint()
    eps, classes = bench.dataset.radius, bench.dataset.num_classes
    x, y = bench.points(bench.settings.pgd_points)
    subject = Subject(model, x, y, eps, classes)
    runs = pgd_runs(subject)
    warm_up = {library: run for library, run in runs.items() if not isinstance(run, Missing)}
    in_turn(warm_up, 1, clock, bench.device)
    timed = in_turn(runs, bench.settings.repeats, clock.share(clock.left() / 4), bench.device)
    yield from _rows(f"pgd-{PGD_STEPS}", timed, subject, f"{name} network")
    count = _compared_points(bench, clock)
    subject = Subject(model, x[:count], y[:count], bench.autoattack_eps, classes)
    timed = in_turn(autoattack_runs(subject), bench.settings.repeats, clock, bench.device)
    yield from _rows("autoattack", timed, subject, f"{name} network")


def in_turn(runs: Runs, repeats: int, clock: Clock, device: torch.device) -> dict[str, Timed]:
    """Run the libraries in turn, each round from another one on, while there is time."""
    timed = {name: Timed() for name in runs}
    names = list(runs)
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            run, one = runs[name], timed[name]
            if isinstance(run, Missing):
                one.missing = run.reason
            elif one.missing is None:
                _run(run, one, timed, clock, device)
    return timed


def _run(run: Run, one: Timed, timed: dict[str, Timed], clock: Clock, device: torch.device) -> None:
    spent = one.seconds or [seconds for other in timed.values() for seconds in other.seconds]
    needed = _SLOWER * max(spent, default=0.0)
    if needed > clock.left():
        if not one.seconds:
            one.missing = f"{needed:.0f} s do not fit into {max(0.0, clock.left()):.0f} s"
        return
    synchronize(device)
    started = time.perf_counter()
    try:
        one.attacked = run()
    except Exception as error:  # another library's fault is a row of its own
        one.missing = f"it failed: {one_line(error)}"
        return
    synchronize(device)
    one.seconds.append(time.perf_counter() - started)


def _rows(attack: str, timed: dict[str, Timed], subject: Subject, note: str) -> Iterator[Row]:
    n, ours = len(subject.y), timed["ours"]
    resisting: dict[str, int] = {}
    for name, one in timed.items():
        if one.attacked is None or not one.seconds:
            yield missing(PART, f"{attack}, {name}", "images/s", one.missing or "no time was left")
            continue
        rates = readings([n / seconds for seconds in one.seconds])
        resisting[name] = int(right(subject.model, one.attacked, subject.y).sum())
        yield Row(
            part=PART, name=f"{attack}, {name}", unit="images/s", value=rates, spread=RANGE,
            note=f"runs of {n} points, {note}",
        )  # fmt: skip
        yield share_row(PART, f"accuracy under {attack}, {name}", resisting[name], n)
    for name in resisting:
        if name == "ours" or "ours" not in resisting:
            continue
        ratios = [b / a for a, b in zip(ours.seconds, timed[name].seconds, strict=False)]
        yield Row(
            part=PART, name=f"{attack}, speed of ours over {name}", unit="x",
            value=readings(ratios), spread=RANGE, note="run by run",
        )  # fmt: skip
        more, allowed = resisting["ours"] - resisting[name], max(1, round(_WEAKER * n))
        yield Row(
            part=PART, name=f"{attack}, ours not weaker than {name}", unit="points",
            value=intervals.exact(more, n), passed=more <= allowed,
            note=f"more points that withstand ours, at most {allowed}",
        )  # fmt: skip


def _compared_points(bench: Bench, clock: Clock) -> int:
    """Return how many points all AutoAttacks get through twice, by what ours took before."""
    most, point_s = bench.settings.compared_points, bench.autoattack_point_s
    if point_s is None:
        return most
    return max(16, min(most, int(clock.left() / (2 * 3 * point_s))))


def measure_certificates(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield the noisy draws per second of randomized smoothing's certificates."""
    name, model = bench.checkpoint()
    settings = RandomizedSmoothing(n=bench.settings.certificate_draws)
    predictor = SmoothedPredictor(Predictor(model), settings)
    x, _ = bench.points(bench.settings.certified_images)
    predictor.certificates(x[:1], bench.generator())
    rates: list[float] = []
    refused, took = 0, 0.0
    while len(rates) < bench.settings.repeats and (not rates or _SLOWER * took < clock.left()):
        synchronize(bench.device)
        started = time.perf_counter()
        found = predictor.certificates(x, bench.generator(len(rates)))
        draws, refused = int(found.draws.sum()), int((found.label == REFUSED).sum())
        took = time.perf_counter() - started
        rates.append(draws / took)
    note = f"{len(x)} images, sigma {settings.sigma:g}, {refused} abstained, {name} network"
    yield Row(
        part="certify", name="certificates", unit="draws/s", value=readings(rates), spread=RANGE,
        note=note,
    )  # fmt: skip
