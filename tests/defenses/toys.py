"""Defenses that use one hook each, named by import path as a user's own would be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.datasets import LabelledImages
from trainables.defenses import Defense, EpochData, EpochVerdict, Preparation, Stack, View
from trainables.defenses.defense import DefenseContext, StepPolicy
from trainables.deployed.predictor import REFUSED, Prediction, Predictor
from trainables.parameters import parameter

HERE = "tests.defenses.toys"


@dataclass(frozen=True, kw_only=True)
class DropClass(Defense):
    """Leave one class out of the training."""

    name = f"{HERE}:DropClass"
    slot = "data_filter"
    label: int = parameter(9, kind="int", meaning="class", low=0)

    def filter(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        return (data.labels != self.label).nonzero().flatten()


@dataclass(frozen=True, kw_only=True)
class ScaleFeatures(Defense):
    """Insert a layer at a point of the model."""

    name = f"{HERE}:ScaleFeatures"
    slot = "architecture"
    needs = ("points",)
    point: str = parameter("features", kind="word", meaning="place")

    def modify_model(self, model: nn.Module, ctx: DefenseContext) -> nn.Module:
        insert: Callable[[str, nn.Module], None] = model.insert  # type: ignore[assignment]
        insert(self.point, nn.Sequential(nn.Dropout(0.1), nn.BatchNorm1d(128)))
        return model


@dataclass(frozen=True, kw_only=True)
class WarmStart(Defense):
    """Start from the undefended model."""

    name = f"{HERE}:WarmStart"
    slot = "training_batch"
    owns = ("prepare",)

    def prepare(self, ctx: DefenseContext, data: LabelledImages, seed: int) -> Preparation | None:
        return Preparation(
            weights=ctx.train(Stack(), data, seed, role="undefended").model.state_dict()
        )


@dataclass(frozen=True, kw_only=True)
class ClipWeights(Defense):
    """Bring every weight back into an interval after each step."""

    name = f"{HERE}:ClipWeights"
    slot = "penalty"
    owns = ("step_policy",)
    bound: float = parameter(0.01, kind="float", meaning="largest weight", low=0.0)

    def step_policy(self) -> StepPolicy | None:
        def clip(model: nn.Module) -> None:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.clamp_(-self.bound, self.bound)

        return StepPolicy(after_step=clip)


class StandingStill(torch.optim.SGD):
    """An optimiser that takes no step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        del closure


@dataclass(frozen=True, kw_only=True)
class NoSteps(Defense):
    """Train with another optimiser."""

    name = f"{HERE}:NoSteps"
    slot = "labels"
    owns = ("step_policy",)

    def step_policy(self) -> StepPolicy | None:
        return StepPolicy(wrap_optimizer=lambda given: StandingStill(given.param_groups, lr=0.1))


@dataclass(frozen=True, kw_only=True)
class SmallHead(Defense):
    """Add the squared weights of the head to the loss."""

    name = f"{HERE}:SmallHead"
    slot = "penalty"
    refuses: ClassVar[Mapping[str, str]] = {"temperature": "a small head has no scale of its own"}
    lam: float = parameter(10.0, kind="float", meaning="weight", low=0.0)

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        head: nn.Linear = model.head  # type: ignore[assignment]
        return self.lam * head.weight.square().sum()


class Rejecting(Predictor):
    """Rejects what it is not sure of."""

    def __init__(self, inner: Predictor, least: float) -> None:
        super().__init__(inner.model)
        self.least = least

    def predict(self, x: Tensor, generator: torch.Generator) -> Prediction:
        found = super().predict(x, generator)
        confidence = found.log_probabilities.exp().amax(1)
        label = found.label.masked_fill(confidence < self.least, REFUSED)
        return replace(found, label=label, reject_score=1 - confidence)


@dataclass(frozen=True, kw_only=True)
class RejectUnsure(Defense):
    """Deploy a predictor that rejects."""

    name = f"{HERE}:RejectUnsure"
    slot = "deployment"
    least: float = parameter(0.99, kind="float", meaning="least confidence", low=0.0, high=1.0)

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        return Rejecting(predictor, self.least)


@dataclass(frozen=True, kw_only=True)
class EverySecondEpoch(Defense):
    """Keep epoch 1 (from 0), and stop after epoch 3."""

    name = f"{HERE}:EverySecondEpoch"
    slot = "stopping"

    @property
    def needs_calibration(self) -> bool:
        return True

    def epoch_score(self, model: nn.Module, data: EpochData) -> float | None:
        assert data.calibration is not None
        return float(len(data.calibration))

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict | None:
        return EpochVerdict(stop=len(scores) == 4, best_epoch=min(len(scores) - 1, 1))


@dataclass(frozen=True, kw_only=True)
class BackOne(Defense):
    """Stop after epoch 3 (from 0) and keep the one before."""

    name = f"{HERE}:BackOne"
    slot = "labels"

    def epoch_score(self, model: nn.Module, data: EpochData) -> float | None:
        return 0.0

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict | None:
        stop = len(scores) == 4
        return EpochVerdict(stop=stop, best_epoch=len(scores) - (2 if stop else 1))


@dataclass(frozen=True, kw_only=True)
class ScoresSeen(Defense):
    """Add nothing, but see to it that the views carry what the model answers to them."""

    name = f"{HERE}:ScoresSeen"
    slot = "penalty"

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        assert all(view.scores is None for view in views)
        return [*views, View(1 - views[0].x, views[0].target, 0.0)]

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        for view in views:
            assert view.scores is not None and view.scores.requires_grad
            torch.testing.assert_close(view.scores, model(view.x))
        assert len(views) == 2
        return None


@dataclass(frozen=True, kw_only=True)
class Breaks(Defense):
    """Fail while training, with a message of several lines."""

    name = f"{HERE}:Breaks"
    slot = "penalty"

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        raise RuntimeError("first line\n  second line")


@dataclass(frozen=True, kw_only=True)
class NotANumber(Defense):
    """Make the loss NaN."""

    name = f"{HERE}:NotANumber"
    slot = "penalty"

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        return views[0].x.sum() * float("nan")


@dataclass(frozen=True, kw_only=True)
class Hangs(Defense):
    """Never get through the first step; say in the file $TOY_LOG that it was tried."""

    name = f"{HERE}:Hangs"
    slot = "penalty"

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        with open(os.environ["TOY_LOG"], "a") as log:
            log.write("tried\n")
        while True:
            time.sleep(1)


@dataclass(frozen=True, kw_only=True)
class Leaks(Defense):
    """Take more and more memory, some 1.5 GiB a second."""

    name = f"{HERE}:Leaks"
    slot = "penalty"

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        kept = []
        while True:
            kept.append(b"x" * 2**25)
            time.sleep(0.02)


CALLS: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Watching(Defense):
    """Write down which hook was called."""

    name = f"{HERE}:Watching"
    slot = "architecture"

    def filter(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        CALLS.append("filter")
        return super().filter(data, ctx)

    def modify_model(self, model: nn.Module, ctx: DefenseContext) -> nn.Module:
        CALLS.append("modify_model")
        return model

    def prepare(self, ctx: DefenseContext, data: LabelledImages, seed: int) -> Preparation | None:
        CALLS.append("prepare")
        return None

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        CALLS.append("views")
        return views

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        CALLS.append("penalty")
        return None

    def step_policy(self) -> StepPolicy | None:
        CALLS.append("step_policy")
        return StepPolicy(
            after_step=lambda model: CALLS.append("after_step"),
            epoch_end=lambda model: CALLS.append("epoch_end"),
        )

    def epoch_score(self, model: nn.Module, data: EpochData) -> float | None:
        CALLS.append("epoch_score")
        return 0.0

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict | None:
        CALLS.append("after_epoch")
        return None

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        CALLS.append("deploy")
        return predictor
