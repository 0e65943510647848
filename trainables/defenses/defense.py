"""What every defense is: frozen parameters, what it declares of itself, and the hooks it may use.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from trainables.datasets import Dataset, LabelledImages, Pools
from trainables.defenses.stack import REPAIR, Slot, Stack
from trainables.deployed.predictor import Predictor
from trainables.parameters import check_parameters, plain_parameters
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.training.trained import Trained
from trainables.trial.settings import TrainingSpec

Guarantee = Literal["none", "empirical", "certified"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a batch is trained on: images with soft targets and a share of the loss."""

    x: Tensor
    """(B, C, H, W) in [0, 1], except for noise that is not cut off."""
    target: Tensor
    """(B, K), rows sum to 1"""
    weight: float
    scores: Tensor | None = None
    """(B, K), what the model answers; the training fills it in before it asks for penalties."""


@dataclass(frozen=True, slots=True)
class EpochVerdict:
    """What a defense wants after an epoch."""

    stop: bool
    best_epoch: int
    """The epoch (from 0) whose weights are to be kept should the training end now."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Preparation:
    """What an earlier training phase leaves to the training proper."""

    weights: Mapping[str, Tensor]
    """To start from."""
    data: LabelledImages | None = None
    """What is trained on instead; None: the same rows as before."""
    settings: TrainingSpec | None = None
    """How it is trained instead; None: as the trial says."""
    seconds: tuple[float, ...] = ()
    """What the phase took besides the trainings that it went through the context for."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EpochData:
    """What a model may be judged on after an epoch."""

    train: LabelledImages
    calibration: LabelledImages | None
    """None where the pools have none; a defense that needs it is then refused beforehand."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingRun:
    """What a step policy may know of the training whose steps are taken."""

    model: nn.Module
    rows: int
    """Rows that are trained on (N)."""
    batch_size: int
    generator: torch.Generator
    """The training's own, on the data's device."""


ChangeModel = Callable[[nn.Module], None]
"""Called with the model, which it may change in place."""


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """How steps are taken: the optimiser to use instead, and what follows each step and epoch."""

    wrap_optimizer: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] | None = None
    around: Callable[[TrainingRun], AbstractContextManager[None]] | None = None
    """Entered before the first step and left after the last, whatever comes between."""
    sample: Callable[[TrainingRun], Tensor] | None = None
    """Draw the rows of a step (R,), instead of shuffled batches; where there are none, the step is
    taken without a loss."""
    after_step: ChangeModel | None = None
    epoch_end: ChangeModel | None = None
    """Before the epoch's curves are measured and its weights may be kept."""
    epoch_values: Callable[[], Mapping[str, float]] | None = None
    """What is kept as curves besides the training's own, after an epoch."""
    state: Callable[[], Mapping[str, Any]] | None = None
    """What the policy has gathered besides weights and optimiser, as tensors, plain values and
    mappings, lists and tuples of them: an interrupted training is resumed from it. Without it the
    policy carries nothing from one epoch to the next."""
    restore: Callable[[nn.Module, Mapping[str, Any]], None] | None = None
    """Go on from such a state, with the model in the state of that moment; inside `around`."""


class DefenseContext(Protocol):
    """What a defense may ask of the trial that it is part of; `TrialContext` answers it."""

    @property
    def seed(self) -> int:
        """The trial's seed."""

    @property
    def stack(self) -> Stack[Defense]:
        """The defenses that are trained with or deployed."""

    @property
    def training(self) -> TrainingSpec:
        """The settings of the trial's training."""

    @property
    def dataset(self) -> Dataset:
        """The data set; its images are in the pools."""

    @property
    def pools(self) -> Pools:
        """The images by what they are for; `deploy` looks at them in a builder alone."""

    @property
    def device(self) -> torch.device:
        """The device of the images and the models."""

    @property
    def store(self) -> ArtefactStore:
        """The store of what was trained and made; `deploy` looks at it in a builder alone."""

    def generator(self, *purpose: str) -> torch.Generator:
        """Return a generator of its own for a purpose."""

    def scores(self, predictor: Predictor, images: LabelledImages) -> Tensor:
        """Return the predictor's scores on a pool (N, K)."""

    def cached(
        self,
        kind: str,
        identity: Mapping[str, Any],
        builder: Callable[[], Artefact],
        *,
        deployed: bool = False,
    ) -> Artefact:
        """Return an artefact from the store, built where it is not there.

        `deployed` says that it is a training behind the deployed model, whose time is its cost.
        """

    def fitted(self, name: str, builder: Callable[[], Artefact]) -> Artefact:
        """Return what a deployment fits to data, by a builder."""

    def train(
        self, stack: Stack[Defense], data: LabelledImages, seed: int, *, role: str = "model"
    ) -> Trained:
        """Train the trial's network under a stack, or return what was trained before.

        A further model has a `role` of its own.
        """

    def with_weights(self, stack: Stack[Defense], weights: Mapping[str, Tensor]) -> nn.Module:
        """Build the network that a stack trains, with the weights of such a training."""

    def deploy(self, stack: Stack[Defense], model: nn.Module) -> Predictor:
        """Deploy a trained model under a stack."""


@dataclass(frozen=True, kw_only=True)
class Defense:
    """A defense that does nothing: the base whose hooks the others override.

    Hooks stand in the order in which data meets them. Subclasses are frozen dataclasses whose
    fields are declared with `parameter`.
    """

    name: ClassVar[str] = "none"
    slot: ClassVar[Slot | None] = None
    guarantee: ClassVar[Guarantee] = "none"
    meaning: ClassVar[str] = "The plain classifier: nothing defends it."
    source: ClassVar[str] = ""
    limits: ClassVar[tuple[str, ...]] = (
        "Nothing defends it: changes too small to see decide what it answers.",
    )
    """What it does not do, a sentence each: for the card of an exported model."""
    broken_by: ClassVar[tuple[str, ...]] = (
        "Szegedy et al., 2014: imperceptible changes make networks answer anything.",
    )
    """How it, or its like, has been broken or fallen short, a sentence each with its source."""
    adaptive_backdoor: ClassVar[str | None] = None
    """Name of the backdoor attack that was made against it; an audit runs it on its stacks."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Parts of the Model contract that it cannot do without."""
    owns: ClassVar[tuple[str, ...]] = ()
    """What only one defense of a stack may do: prepare, step_policy, inner_maximisation."""
    deployment_only: ClassVar[tuple[str, ...]] = ()
    """Parameters that no training depends on, so that a new value of theirs retrains nothing."""
    refuses: ClassVar[Mapping[str, str]] = {}
    """Name of another defense -> why the two cannot be stacked."""
    trains: ClassVar[str | None] = None
    """What it changes or adds of the network by training, in words, empty where nothing: why it
    cannot be put on given weights. None: it trains where it has a part in the training."""

    def __post_init__(self) -> None:
        check_parameters(self, self.name)

    def filter(self, data: LabelledImages, ctx: DefenseContext) -> Tensor:
        """Return the rows of the training data that are kept (R,), in order."""
        del ctx
        return torch.arange(len(data), device=data.labels.device)

    def row_scores(self, data: LabelledImages, ctx: DefenseContext) -> Tensor | None:
        """Return how suspicious each row is (N,), where a filter goes by a score."""
        del data, ctx
        return None

    def modify_model(self, model: nn.Module, ctx: DefenseContext) -> nn.Module:
        """Return the model with what the defense builds into it."""
        del ctx
        return model

    def prepare(self, ctx: DefenseContext, data: LabelledImages, seed: int) -> Preparation | None:
        """Go through an earlier training phase on the (filtered) data and return what it leaves."""
        del ctx, data, seed
        return None

    def in_epoch(self, epoch: int, epochs: int) -> Defense:
        """Return the defense as it is in an epoch (from 0) of so many: it may follow a schedule.

        It shapes the views and penalties of the epoch, by these two numbers alone: a training that
        is resumed goes on as it would have gone.
        """
        del epoch, epochs
        return self

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Turn the views of a batch (at first the clean batch alone) into those to train on."""
        del model, generator
        return views

    def penalty(self, model: nn.Module, views: Sequence[View]) -> Tensor | None:
        """Return what is added to the loss (), or None; the views have their scores."""
        del model, views
        return None

    def step_policy(self) -> StepPolicy | None:
        """Return how steps are taken, or None for the plain optimiser."""
        return None

    def epoch_score(self, model: nn.Module, data: EpochData) -> float | None:
        """Measure the model after an epoch, in the mode it is in; the scores are kept as a curve.

        Its mode, its parameters and torch's global generators are left as they were.
        """
        del model, data
        return None

    def after_epoch(self, scores: Sequence[float]) -> EpochVerdict | None:
        """Judge by the scores so far, one an epoch, whether to stop and which epoch to keep."""
        del scores
        return None

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Return the deployed predictor; what it fits, it fits on the calibration pool."""
        del ctx
        return predictor

    @property
    def needs_calibration(self) -> bool:
        """Whether something is fitted or stopped on the calibration pool."""
        return False

    @property
    def shapes_training(self) -> bool:
        """Whether the defense has a part in the training, and so in the model's identity."""
        own, plain = type(self), Defense
        return any(getattr(own, hook) is not getattr(plain, hook) for hook in TRAINING_HOOKS)

    @classmethod
    def on_given_weights(cls) -> str:
        """Return why it cannot be put on a network whose weights are given; empty where it can."""
        if cls.trains is not None:
            return cls.trains
        if cls.slot == REPAIR:
            return "it fine-tunes the network, and they are kept as they are"
        hooks = [
            name for name in TRAINING_HOOKS if getattr(cls, name) is not getattr(Defense, name)
        ]
        return "it takes part in the training, and they are kept as they are" if hooks else ""

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters as plain JSON values: the defense's part of an identity."""
        return {"name": self.name, **plain_parameters(self)}


TRAINING_HOOKS = (
    "filter", "modify_model", "prepare", "in_epoch", "views", "penalty", "step_policy",
    "epoch_score", "after_epoch",
)  # fmt: skip
