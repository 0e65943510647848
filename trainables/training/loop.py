"""One training: a model, its data and a stack of defenses in; weights and curves out.

Axes: B batch, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.datasets import LabelledImages
from trainables.datasets.augment import augment
from trainables.datasets.dataset import Augmentation
from trainables.defenses.defense import (
    Defense,
    EpochData,
    EpochVerdict,
    StepPolicy,
    TrainingRun,
    View,
)
from trainables.device import accelerated, training_precision
from trainables.errors import TrainingDivergedError
from trainables.training.checkpoints import Checkpoints, Moving, remaining_epochs
from trainables.training.evaluation import loss_and_accuracy
from trainables.training.optimizers import SGD, Adam
from trainables.trial.settings import TrainingSpec

VERSION = 2
"""Raised when the results of a training change, so that old artefacts are not mistaken for new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """All that a training takes besides the model."""

    data: LabelledImages
    held_out: LabelledImages
    """What the validation curves are measured on; nothing is selected by them."""
    calibration: LabelledImages | None
    num_classes: int
    augmentation: Augmentation
    settings: TrainingSpec
    stack: tuple[Defense, ...]
    start: Mapping[str, Tensor] | None = None
    """Weights of an earlier phase to start from."""


@dataclass(slots=True)
class Progress:
    """What a training has gathered so far."""

    curves: dict[str, list[float]] = field(default_factory=dict)
    epoch_seconds: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    """Weights to go back to at the end, where a defense keeps an earlier epoch."""

    def add(self, **values: float) -> None:
        """Append an epoch's values to their curves."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)


def train(
    model: nn.Module,
    plan: TrainingPlan,
    generator: torch.Generator,
    checkpoints: Checkpoints | None = None,
) -> Progress:
    """Train the model in place, from the last checkpoint where there is one.

    Raises TrainingDivergedError, with the epoch, as soon as a mean loss or a defense's score is not
    finite, and DoesNotFitError for the checkpoint of another training.
    """
    device = plan.data.labels.device
    if accelerated(device):
        model = model.to(memory_format=torch.channels_last)
    if plan.start is not None:
        model.load_state_dict(dict(plan.start))
    run = TrainingRun(
        model=model,
        rows=len(plan.data),
        batch_size=plan.settings.batch_size,
        generator=generator,
    )
    optimizer = _optimizer(model, plan.settings)
    policies = [policy for defense in plan.stack if (policy := defense.step_policy())]
    for policy in policies:
        if policy.wrap_optimizer:
            optimizer = policy.wrap_optimizer(optimizer)
    steps = plan.settings.epochs * _steps_per_epoch(run)
    schedule = _schedule(optimizer, plan.settings, steps)
    progress = Progress()
    moving = Moving(model=model, optimizer=optimizer, schedule=schedule, generator=generator)
    training = _Training(moving, policies, progress)
    with ExitStack() as entered:
        for policy in policies:
            if policy.around:
                entered.enter_context(policy.around(run))
        for epoch in remaining_epochs(training, plan.settings.epochs, checkpoints):
            started = time.perf_counter()
            stack = tuple(d.in_epoch(epoch, plan.settings.epochs) for d in plan.stack)
            totals = _train_epoch(run, replace(plan, stack=stack), optimizer, schedule, policies)
            seconds = time.perf_counter() - started
            for policy in policies:
                if policy.epoch_values:
                    progress.add(**policy.epoch_values())
            if _end_epoch(model, plan, progress, epoch, totals, seconds):
                break
    if progress.best is not None:
        model.load_state_dict(progress.best)
    return progress


@dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """All that the epochs to come depend on."""

    moving: Moving
    policies: Sequence[StepPolicy]
    progress: Progress

    @property
    def epochs_done(self) -> int:
        return len(self.progress.epoch_seconds)

    def state(self) -> dict[str, Any]:
        return {
            "moving": self.moving.state(),
            "policies": [policy.state() if policy.state else None for policy in self.policies],
            "curves": self.progress.curves,
            "epoch_seconds": self.progress.epoch_seconds,
            "best": self.progress.best,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.moving.restore(state["moving"])
        for policy, kept in zip(self.policies, state["policies"], strict=True):
            if policy.restore:
                policy.restore(self.moving.model, kept)
        progress, best = self.progress, state["best"]
        progress.curves, progress.epoch_seconds = state["curves"], state["epoch_seconds"]
        if best is not None:
            there = self.moving.model.state_dict()
            progress.best = {name: value.to(there[name]) for name, value in best.items()}


def _train_epoch(
    run: TrainingRun,
    plan: TrainingPlan,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    policies: Sequence[StepPolicy],
) -> list[float]:
    """Take an epoch's steps and return loss, correct and count, each summed over its rows."""
    model, device = run.model, plan.data.labels.device
    model.train()
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    for rows in _epoch_rows(run, policies, device):
        optimizer.zero_grad(set_to_none=True)
        if len(rows) > 0:
            loss, correct = _loss(model, plan, rows, run.generator)
            loss.backward()  # type: ignore[no-untyped-call]
            totals += torch.stack(
                [loss.detach().double() * len(rows), correct, torch.full_like(correct, len(rows))]
            )
        optimizer.step()
        schedule.step()
        for policy in policies:
            if policy.after_step:
                policy.after_step(model)
    for policy in policies:
        if policy.epoch_end:
            policy.epoch_end(model)
    sums: list[float] = totals.tolist()
    return sums


def _epoch_rows(
    run: TrainingRun, policies: Sequence[StepPolicy], device: torch.device
) -> Iterator[Tensor]:
    """Return the rows of each step of an epoch: shuffled batches, unless a policy draws them."""
    drawing = [policy.sample for policy in policies if policy.sample]
    if drawing:
        for _ in range(_steps_per_epoch(run)):
            yield drawing[0](run)
    else:
        order = torch.randperm(run.rows, generator=run.generator, device=device)
        yield from _batches(order, run.batch_size)


def _steps_per_epoch(run: TrainingRun) -> int:
    return len(_batches(torch.arange(run.rows), run.batch_size))


def _loss(
    model: nn.Module, plan: TrainingPlan, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch and how many of its first view's images were classified right."""
    x = augment(plan.data.images(rows), plan.augmentation, generator)
    if accelerated(x.device):
        x = x.contiguous(memory_format=torch.channels_last)
    y = plan.data.labels[rows]
    with training_precision(x.device):
        views: Sequence[View] = [View(x, F.one_hot(y, plan.num_classes).to(x.dtype), 1.0)]
        for defense in plan.stack:
            views = defense.views(model, views, generator)
        # One forward pass of all views, so that batch norm sees the mixture that it is trained on.
        scores = model(torch.cat([view.x for view in views])).float()
        parts = scores.split(len(rows))
        views = [replace(view, scores=part) for view, part in zip(views, parts, strict=True)]
        loss = torch.zeros((), device=x.device)
        for view, part in zip(views, parts, strict=True):
            if view.weight != 0:
                loss = loss + view.weight * F.cross_entropy(part, view.target)
        for defense in plan.stack:
            penalty = defense.penalty(model, views)
            if penalty is not None:
                loss = loss + penalty
    correct = (scores[: len(rows)].argmax(1) == y).double().sum()
    return loss, correct


def _end_epoch(
    model: nn.Module,
    plan: TrainingPlan,
    progress: Progress,
    epoch: int,
    totals: Sequence[float],
    seconds: float,
) -> bool:
    """Write the epoch's curves, ask the defenses, and return whether the training ends here."""
    loss, correct, count = totals
    held_out = loss_and_accuracy(model, plan.held_out)
    # The last step of an epoch shows in the held-out loss alone.
    for what, value in (("training loss", loss), ("validation loss", held_out.loss)):
        _check_finite(what, value, plan, epoch)
    progress.add(
        train_loss=loss / count,
        train_accuracy=correct / count,
        validation_loss=held_out.loss,
        validation_accuracy=held_out.accuracy,
    )
    started = time.perf_counter()
    verdicts = [verdict for d in plan.stack if (verdict := _ask(d, model, plan, progress, epoch))]
    # What a defense measures to judge by is a cost of its training; the curves above are not.
    progress.epoch_seconds.append(seconds + time.perf_counter() - started)
    keeping = [verdict for verdict in verdicts if verdict.best_epoch != epoch]
    if verdicts and not keeping:
        progress.best = {k: v.detach().clone() for k, v in model.state_dict().items()}
    return any(verdict.stop for verdict in verdicts)


def _check_finite(what: str, value: float, plan: TrainingPlan, epoch: int) -> None:
    if not math.isfinite(value):
        raise TrainingDivergedError(
            f"the {what} is {value} in epoch {epoch + 1} of {plan.settings.epochs}; "
            "lower the learning rate or the penalty"
        )


def _ask(
    defense: Defense, model: nn.Module, plan: TrainingPlan, progress: Progress, epoch: int
) -> EpochVerdict | None:
    data = EpochData(train=plan.data, calibration=plan.calibration)
    score = defense.epoch_score(model, data)
    if score is None:
        return None
    _check_finite(f"{defense.name} score", score, plan, epoch)
    progress.add(**{f"{defense.name}_score": score})
    return defense.after_epoch(progress.curves[f"{defense.name}_score"])


def _batches(order: Tensor, size: int) -> list[Tensor]:
    batches = list(torch.split(order, size))
    # Batch norm cannot be trained on a single image; another epoch's order will hold it elsewhere.
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()
    return batches


def _optimizer(model: nn.Module, settings: TrainingSpec) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return Adam(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def _schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSpec, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.schedule == "one_cycle" and steps > 1:  # one step is not a cycle
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, cycle_momentum=False
        )
    if settings.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
