"""A0 and the A1 row: trainings by the project's own loop, until a time, and what they reach."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.on_gpu.bench import Bench
from benchmarks.on_gpu.compiling import CompiledInTraining, Gain, Pace, plain
from benchmarks.on_gpu.report import RANGE, Clock, Row, missing, one_line, readings, share_row
from benchmarks.on_gpu.robustness import attacked_rows
from trainables.datasets import LabelledImages
from trainables.defenses import Defense, EpochData, EpochVerdict
from trainables.defenses.training.fgsm_adversarial_training import FgsmAdversarialTraining
from trainables.device import precisions
from trainables.metrics import intervals
from trainables.models import build_model
from trainables.parameters import parameter
from trainables.training.evaluation import loss_and_accuracy
from trainables.training.loop import Progress, TrainingPlan, train
from trainables.training.modes import seeded
from trainables.trial.settings import TrainingSpec

_ADVERSARIAL_EPOCHS = 3.5
"""Epochs of plain training that one of FGSM adversarial training is expected to take: a pass to
and fro for the examples, and one over twice the images."""
_RESERVE = 0.85
"""Share of the time left that a training is planned to fill."""


@dataclass(frozen=True, kw_only=True)
class StopAt(Defense):
    """End a training before the epoch that would not be over in time."""

    name = "stop_at"
    slot = "stopping"
    meaning = "End the training before a moment."
    until: float = parameter(
        0.0, kind="float", meaning="moment on the clock of time.perf_counter", low=0.0,
        unit="seconds",
    )  # fmt: skip

    def epoch_score(self, model: nn.Module, data: EpochData) -> float:
        """Return the moment at which the epoch ended."""
        del model, data
        return time.perf_counter()

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict:
        """Keep the last epoch; stop where another one as long would end too late."""
        last = scores[-1] - scores[-2] if len(scores) > 1 else 0.0
        return EpochVerdict(stop=scores[-1] + last > self.until, best_epoch=len(scores) - 1)


def new_model(bench: Bench) -> nn.Module:
    """Return an untrained network on the device."""
    with seeded(0, bench.device):
        model = build_model(bench.settings.model, dataset=bench.dataset)
    return model.to(bench.device)


def fit(
    bench: Bench,
    model: nn.Module,
    *,
    epochs: int,
    data: LabelledImages,
    held_out: LabelledImages,
    stack: tuple[Defense, ...] = (),
    until: float | None = None,
) -> Progress:
    """Train a network in place under the project's own loop, to the end or until a moment."""
    settings = bench.settings
    plan = TrainingPlan(
        data=data,
        held_out=held_out,
        calibration=None,
        num_classes=bench.dataset.num_classes,
        augmentation=bench.dataset.augmentation,
        settings=TrainingSpec(
            epochs=epochs, batch_size=settings.batch_size, learning_rate=settings.learning_rate
        ),
        stack=stack if until is None else (*stack, StopAt(until=until)),
    )
    with seeded(0, bench.device) as generator:
        return train(model, plan, generator)


def pace_of(bench: Bench, model: nn.Module) -> Pace:
    """Time a few steps of the training, and put the network's weights back."""
    settings = bench.settings
    data = _first(bench.pools.train, settings.probe_steps * settings.batch_size)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    progress = fit(
        bench,
        model,
        epochs=settings.probe_epochs,
        data=data,
        held_out=_first(bench.pools.test, settings.batch_size),
    )
    model.load_state_dict(before)
    first, *others = progress.epoch_seconds
    rates = tuple(len(data) / seconds for seconds in others)
    return Pace(rates, max(0.0, first - len(data) / readings(rates).value))


def measure_a0(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield the rows of the undefended baseline: pace, seconds to the accuracy, accuracy."""
    model, how = new_model(bench), "eager"
    bench.pace = pace_of(bench, model)
    yield _pace_row("training, eager", bench.pace)
    rate, compiler = bench.pace.median, bench.settings.compiler
    try:
        compiled = CompiledInTraining(new_model(bench), compiler)
        pace = pace_of(bench, compiled)
    except Exception as error:  # whatever the compiler raises, the eager network trains on
        reason = f"torch.compile failed: {one_line(error)}"
        yield missing("A0", f"training, torch.compile ({compiler})", "images/s", reason)
    else:
        yield _pace_row(f"training, torch.compile ({compiler})", pace)
        bench.gain = Gain(pace.median / rate, pace.warm_up_s)
        if pace.median > rate:  # what compiling takes is spent by now
            model, how, rate = compiled, "torch.compile", pace.median
    epochs = epochs_that_fit(bench, model, rate, bench.settings.epochs, clock)
    if epochs == 0:
        yield missing("A0", "training", "s", f"no epoch fits into {clock.left():.0f} s")
        return
    train_rows, test = bench.pools.train, bench.pools.test
    progress = fit(bench, model, epochs=epochs, data=train_rows, held_out=test, until=clock.until)
    bench.undefended = plain(model)
    yield from _training_rows("A0", bench, progress, f"{how}, {_plan(bench, epochs)}")
    yield _target_row(bench, progress)


def measure_a1(bench: Bench, clock: Clock) -> Iterator[Row]:
    """Yield the rows of FGSM adversarial training, and its accuracy under AutoAttack."""
    training_clock, model, how = clock.share(clock.left() / 2), new_model(bench), "eager"
    pace = bench.pace or pace_of(bench, model)
    rate = pace.median / _ADVERSARIAL_EPOCHS
    most = bench.settings.adversarial_epochs
    epochs = epochs_that_fit(bench, model, rate, most, training_clock)
    if epochs == 0:
        reason = f"no epoch fits into {training_clock.left():.0f} s"
        yield missing("A1", "training", "s", reason)
        return
    if bench.gain is not None and bench.gain.pays(epochs * len(bench.pools.train) / rate):
        model, how = CompiledInTraining(model, bench.settings.compiler), "torch.compile"
    defense = FgsmAdversarialTraining(eps=(bench.dataset.radius,), detect_overfitting=False)
    progress = fit(
        bench,
        model,
        epochs=epochs,
        data=bench.pools.train,
        held_out=bench.pools.test,
        stack=(defense,),
        until=training_clock.until,
    )
    bench.adversarial = plain(model)
    yield from _training_rows("A1", bench, progress, f"{how}, {_plan(bench, epochs)}")
    yield from attacked_rows(bench, clock)


def epochs_that_fit(bench: Bench, model: nn.Module, rate: float, most: int, clock: Clock) -> int:
    """Return how many epochs, evaluation included, fit into the time at a pace in images/s."""
    started = time.perf_counter()
    loss_and_accuracy(model, bench.pools.test)  # it ends in numbers, so the device has done it
    seconds = len(bench.pools.train) / rate + time.perf_counter() - started
    return max(0, min(most, int(_RESERVE * clock.left() / seconds)))


def _training_rows(part: str, bench: Bench, progress: Progress, note: str) -> Iterator[Row]:
    seconds, rows = progress.epoch_seconds, len(bench.pools.train)
    total = intervals.exact(sum(seconds), len(seconds))
    yield Row(part=part, name="training", unit="s", value=total, note=f"n epochs; {note}")
    rates = readings([rows / one for one in seconds])
    yield Row(part=part, name="training", unit="images/s", value=rates, spread=RANGE, note="epochs")
    name = "clean accuracy on the test set"
    if bench.synthetic:
        yield missing(part, name, "share", bench.synthetic)
        return
    n = len(bench.pools.test)
    right = round(progress.curves["validation_accuracy"][-1] * n)
    yield share_row(part, name, right, n)


def _target_row(bench: Bench, progress: Progress) -> Row:
    target, reached = bench.settings.target_accuracy, progress.curves["validation_accuracy"]
    name = f"seconds of training to {100 * target:.2f} %"
    if bench.synthetic:
        return missing("A0", name, "s", bench.synthetic)
    seconds = progress.epoch_seconds
    for epoch, accuracy in enumerate(reached):
        if accuracy >= target:
            value = intervals.exact(sum(seconds[: epoch + 1]))
            note = f"after epoch {epoch + 1}, one seed, evaluation not counted"
            return Row(part="A0", name=name, unit="s", value=value, note=note)
    reason = f"{100 * max(reached):.2f} % at most, in {sum(seconds):.1f} s of training"
    return missing("A0", name, "s", reason)


def _pace_row(name: str, pace: Pace) -> Row:
    value, note = readings(pace.images_per_s), f"the first epoch took {pace.warm_up_s:.1f} s more"
    return Row(part="A0", name=name, unit="images/s", value=value, spread=RANGE, note=note)


def _plan(bench: Bench, epochs: int) -> str:
    settings = bench.settings
    return (
        f"{settings.model} on {bench.dataset.name}, {epochs} epochs planned of "
        f"{len(bench.pools.train)} images, {settings.batch_size} a step, one_cycle to "
        f"{settings.learning_rate:g}, {precisions(bench.device)['training_precision']}"
    )


def _first(data: LabelledImages, count: int) -> LabelledImages:
    return data.select(torch.arange(min(count, len(data))))
