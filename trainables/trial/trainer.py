"""Training a trial's network under a stack, and building it again with the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainables.datasets import LabelledImages
from trainables.datasets.dataset import Augmentation
from trainables.datasets.images import content_hash
from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.stack import Stack
from trainables.device import full_precision
from trainables.errors import InputError
from trainables.models import build_model
from trainables.models.given.fitting import Fitted
from trainables.models.given.loading import given_state
from trainables.storage.artefacts import Artefact
from trainables.storage.identity import identity_hash, seed_from
from trainables.training import loop
from trainables.training.checkpoints import Checkpoints, resumable
from trainables.training.modes import seeded
from trainables.training.trained import Trained, weights_digest
from trainables.trial.deployment_spec import DeploymentSpec
from trainables.trial.usage import UsageLog

VERSION_OF_GIVEN = 1
"""Raised when a checkpoint is read as other weights than before."""
KEPT = (
    "it takes further trainings of the network, and given weights are kept as they are: nothing "
    "trains another network like theirs"
)


class TrainingContext(DefenseContext, Protocol):
    """What a training takes from its trial, besides what defenses may ask of it."""

    @property
    def spec(self) -> DeploymentSpec:
        """What is trained and deployed."""

    @property
    def model_code(self) -> str:
        """Fingerprint of a user's own network."""

    @property
    def curve_pool(self) -> LabelledImages:
        """The pool that learning curves are drawn on."""

    @property
    def log(self) -> UsageLog:
        """What the trial has used so far."""

    def noting_in(self, log: UsageLog) -> TrainingContext:
        """Return the same context with another log."""

    def cached(
        self,
        kind: str,
        identity: Mapping[str, Any],
        builder: Callable[[], Artefact],
        *,
        role: str | None = None,
        deployed: bool = False,
    ) -> Artefact:
        """Return an artefact from the store, built where it is not there, noted under its role."""


def train(
    ctx: TrainingContext,
    stack: Stack[Defense],
    data: LabelledImages,
    seed: int,
    *,
    role: str,
    deployed: bool,
) -> Trained:
    """Train the trial's network under a stack on some rows, or return what was trained before.

    Defenses that only change the deployment have no part in the identity, so a new
    temperature trains nothing. Given weights are returned as they are.
    """
    if ctx.spec.model.weights:
        return _given(ctx, stack, data, seed, role=role, deployed=deployed)
    identity = _identity(ctx, stack, data, seed)
    # What a training measures, and what its defenses fit or craft before it, is in float32; the
    # forward pass of its steps alone is in `training_precision`.
    with full_precision(ctx.device):
        artefact = ctx.cached(
            "model",
            identity,
            lambda: resumable(
                ctx.store,
                ctx.store.key("model", identity),
                lambda checkpoints: _fit(ctx, stack, data, identity, seed, checkpoints),
            ),
            role=role,
            deployed=deployed,
        )
    weights = {k.removeprefix("model."): v for k, v in artefact.tensors.items() if k != "kept"}
    kept = artefact.tensors["kept"].to(ctx.device)
    return Trained(
        model=with_weights(ctx, stack, weights),
        members=data.select(kept),
        kept=kept,
        curves=artefact.values["curves"],
        seconds=tuple(artefact.values["epoch_seconds"]),
        key=ctx.log.used[role],
        weights_sha256=weights_digest(weights),
    )


def _given(
    ctx: TrainingContext,
    stack: Stack[Defense],
    data: LabelledImages,
    seed: int,
    *,
    role: str,
    deployed: bool,
) -> Trained:
    """Return the network with the weights that the spec gives, on whatever it was trained.

    Raises InputError where another network than that is asked for.
    """
    own = content_hash(ctx.pools.train)
    if seed != ctx.spec.seed or content_hash(data) != own:
        raise InputError(KEPT)
    artefact = ctx.cached(
        "model", _given_identity(ctx), lambda: _read(ctx), role=role, deployed=deployed
    )
    return Trained(
        model=with_weights(ctx, stack, artefact.tensors),
        members=data,
        kept=torch.arange(len(data), device=ctx.device),
        curves={},
        seconds=(),
        key=ctx.log.used[role],
        weights_sha256=weights_digest(artefact.tensors),
    )


def _given_identity(ctx: TrainingContext) -> dict[str, Any]:
    """Return what a network of given weights is identified by: wherever the file lies."""
    model = ctx.spec.model
    return {
        "version": VERSION_OF_GIVEN,
        "given": model.weights_sha256,
        "model": {**model.untrained.canonical(), "code": ctx.model_code},
        "activation": ctx.spec.training.activation,
        "shape": list(ctx.dataset.shape),
        "classes": ctx.dataset.num_classes,
    }


def read_given(ctx: TrainingContext) -> Fitted:
    """Read the weights that the spec gives, by the names of its network.

    Raises InputError where they do not fit it, or the file is another one.
    """
    model, classes = ctx.spec.model, ctx.dataset.num_classes
    with seeded(0, ctx.device):
        network = new_model(ctx, Stack())
    return given_state(model.weights, model.weights_sha256, network, classes)


def _read(ctx: TrainingContext) -> Artefact:
    found = read_given(ctx)
    # No epoch was trained here: what the weights cost before is not known.
    return Artefact(dict(found.state), {"epoch_seconds": [], "words": list(found.words)})


def with_weights(
    ctx: TrainingContext, stack: Stack[Defense], weights: Mapping[str, Tensor]
) -> nn.Module:
    """Build the network that a stack trains, with the weights of such a training.

    Raises RuntimeError where the weights are those of another network.
    """
    with seeded(0, ctx.device):  # the initial weights are overwritten
        model = new_model(ctx, stack)
    model.load_state_dict(dict(weights))
    return model.to(ctx.device).eval()


def filtered(ctx: TrainingContext, stack: Stack[Defense], data: LabelledImages) -> Tensor:
    """Return the rows (R,) that a stack's filters keep of the data that it is given, in order."""
    kept = torch.arange(len(data), device=ctx.device)
    for defense in stack.training:
        kept = kept[defense.filter(data.select(kept), ctx)]
    return kept


def new_model(ctx: TrainingContext, stack: Stack[Defense]) -> nn.Module:
    """Build the network that a stack trains, as it is before its training.

    Raises InputError where a defense refuses its layers.
    """
    model = build_model(
        ctx.spec.model.name,
        dataset=ctx.dataset,
        norm=ctx.spec.model.norm,
        activation=ctx.spec.training.activation,
    )
    for defense in stack.training:
        model = defense.modify_model(model, ctx)
    return model


def _identity(
    ctx: TrainingContext, stack: Stack[Defense], data: LabelledImages, seed: int
) -> dict[str, Any]:
    return {
        "version": loop.VERSION,
        "data": content_hash(data),
        "curves_on": content_hash(ctx.curve_pool),
        "calibration": content_hash(ctx.pools.calibration)
        if any(d.needs_calibration for d in stack.training) and ctx.pools.calibration
        else None,
        "model": {
            **ctx.spec.model.canonical(),
            "code": ctx.model_code,
        },
        "training": asdict(ctx.spec.training),
        "stack": stack.training_identity(),
        "seed": seed,
    }


def _fit(
    ctx: TrainingContext,
    stack: Stack[Defense],
    data: LabelledImages,
    identity: Mapping[str, Any],
    seed: int,
    checkpoints: Checkpoints,
) -> Artefact:
    # What the trainings on the way took is kept alongside the weights, for whoever finds those
    # in the store: a log of their own gathers it.
    log = UsageLog(used=ctx.log.used)
    inner = ctx.noting_in(log)
    kept = filtered(inner, stack, data)
    with seeded(seed_from(identity_hash(identity), "training"), ctx.device) as generator:
        model = new_model(inner, stack).to(ctx.device)
        phases = [
            phase for d in stack.training if (phase := d.prepare(inner, data.select(kept), seed))
        ]
        earlier = phases[0] if phases else None
        if earlier and earlier.seconds:
            log.note_training(ctx.store.key("model", identity) + ":prepare", earlier.seconds)
        progress = loop.train(
            model,
            loop.TrainingPlan(
                data=(earlier and earlier.data) or data.select(kept),
                held_out=ctx.curve_pool,
                calibration=ctx.pools.calibration,
                num_classes=ctx.dataset.num_classes,
                augmentation=_augmentation(ctx),
                settings=(earlier and earlier.settings) or ctx.spec.training,
                stack=stack.training,
                start=earlier.weights if earlier else None,
            ),
            generator,
            checkpoints,
        )
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return Artefact(
        {**weights, "kept": kept},
        {
            "curves": progress.curves,
            "epoch_seconds": progress.epoch_seconds,
            "phases": {key: list(seconds) for key, seconds in log.phases.items()},
        },
    )


def _augmentation(ctx: TrainingContext) -> Augmentation:
    asked = ctx.spec.training.augmentation
    if asked == "default":
        return ctx.dataset.augmentation
    return "crop_flip" if asked == "crop_flip" else "none"
