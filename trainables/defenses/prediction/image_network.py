"""Networks that map images to images, trained once on the training set and shared among trials.

Axes: B batch, C channels, H, W.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.defenses.defense import DefenseContext
from trainables.device import training_precision
from trainables.errors import TrainingDivergedError
from trainables.models.unet import UNet
from trainables.storage.artefacts import Artefact
from trainables.storage.identity import identity_hash, seed_from
from trainables.training.adam import adam_along_cosine
from trainables.training.checkpoints import Checkpoints, Moving, remaining_epochs, resumable
from trainables.training.modes import seeded

VERSION = 1
"""Raised when the results of such a training change, so that old ones are not mistaken for new."""
BATCH = 64
"""Images of an optimiser step."""
_FILTERS_GREY, _FILTERS_COLOUR = 16, 32
Loss = Callable[[UNet, Tensor, torch.Generator], Tensor]
"""(network, clean images (B, C, H, W) in [0, 1], generator) -> mean loss ()."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """The size of a network and how it is trained: Adam, its rate falling to 0 along a cosine."""

    filters: int
    """Channels of the first maps; the halved ones have twice as many."""
    most_halvings: int
    time: bool
    """Whether a time is an input alongside the image."""
    epochs: int | None
    """None: as many as make about the updates that the network is trained for."""
    batch_size: int = BATCH
    learning_rate: float = 4e-3


def epochs_for(updates: int, ctx: DefenseContext) -> int:
    """Return the epochs, at least one, that make about so many optimiser steps."""
    return max(1, round(updates / math.ceil(len(ctx.pools.train) / BATCH)))


def filters_for(ctx: DefenseContext) -> int:
    """Return the filters of a network.

    On the digits 24 and 32 gained nothing over 16, with which purified MNIST is classified as well
    as before.
    """
    channels, _, _ = ctx.dataset.shape
    return _FILTERS_GREY if channels == 1 else _FILTERS_COLOUR


def shared_network(
    ctx: DefenseContext,
    kind: str,
    settings: NetworkSettings,
    loss: Loss,
    *,
    trained_for: Mapping[str, Any],
    updates: int = 1,
) -> UNet:
    """Return the network, trained on the training set unless another trial has done so.

    `trained_for` holds the plain values that the loss depends on; `updates` are the optimiser steps
    that make the epochs where the settings name none. The rows are `ctx.pools.train`
    as they are, before any filter of the stack, so that trials with different filters share one
    network; their labels play no part. Raises TrainingDivergedError where the loss is not finite.
    """
    artefact = ctx.fitted(
        kind, lambda: _trained(ctx, kind, settings, loss, trained_for=trained_for, updates=updates)
    )
    with seeded(0, ctx.device):  # the initial weights are overwritten
        network = _new_network(ctx, settings)
    network.load_state_dict(dict(artefact.tensors))
    return network.eval().requires_grad_(False)


def _trained(
    ctx: DefenseContext,
    kind: str,
    settings: NetworkSettings,
    loss: Loss,
    *,
    trained_for: Mapping[str, Any],
    updates: int,
) -> Artefact:
    """Return the network's weights from the store, trained where nobody has."""
    settings = replace(settings, epochs=settings.epochs or epochs_for(updates, ctx))
    identity = {
        "version": VERSION,
        "data": content_hash(ctx.pools.train),
        "settings": asdict(settings),
        "for": dict(trained_for),
        "seed": ctx.seed,
    }
    return ctx.cached(
        kind,
        identity,
        lambda: resumable(
            ctx.store,
            ctx.store.key(kind, identity),
            lambda checkpoints: _fit(ctx, kind, settings, loss, identity, checkpoints),
        ),
        deployed=True,
    )


def _new_network(ctx: DefenseContext, settings: NetworkSettings) -> UNet:
    channels, height, width = ctx.dataset.shape
    network = UNet(
        channels=channels,
        height=height,
        width=width,
        filters=settings.filters,
        most_halvings=settings.most_halvings,
        time=settings.time,
    )
    return network.to(ctx.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _fit(
    ctx: DefenseContext,
    kind: str,
    settings: NetworkSettings,
    loss: Loss,
    identity: Mapping[str, Any],
    checkpoints: Checkpoints,
) -> Artefact:
    data = ctx.pools.train
    assert settings.epochs is not None, "they are settled before the identity is"
    with seeded(seed_from(identity_hash(identity), kind), ctx.device) as generator:
        network = _new_network(ctx, settings)
        moving = adam_along_cosine(
            network,
            learning_rate=settings.learning_rate,
            steps=settings.epochs * math.ceil(len(data) / settings.batch_size),
            generator=generator,
        )
        training = _Training(moving)
        for epoch in remaining_epochs(training, settings.epochs, checkpoints):
            started = time.perf_counter()
            mean = _epoch(network, data, settings, loss, moving)
            training.losses.append(mean)
            training.epoch_seconds.append(time.perf_counter() - started)
            if not math.isfinite(mean):
                raise TrainingDivergedError(
                    f"the loss of the {kind} is {mean} in epoch {epoch + 1} of {settings.epochs}"
                )
    return Artefact(network.state_dict(), training.gathered())


@dataclass(slots=True)
class _Training:
    """All that the epochs to come depend on, and what each has gathered."""

    moving: Moving
    losses: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)

    @property
    def epochs_done(self) -> int:
        return len(self.losses)

    def gathered(self) -> dict[str, list[float]]:
        return {"losses": self.losses, "epoch_seconds": self.epoch_seconds}

    def state(self) -> dict[str, Any]:
        return {"moving": self.moving.state(), **self.gathered()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.moving.restore(state["moving"])
        self.losses, self.epoch_seconds = state["losses"], state["epoch_seconds"]


def _epoch(
    network: UNet, data: LabelledImages, settings: NetworkSettings, loss: Loss, moving: Moving
) -> float:
    """Go through the data once; return the mean loss."""
    generator = moving.generator
    order = torch.randperm(len(data), generator=generator, device=data.labels.device)
    total = torch.zeros((), dtype=torch.float64, device=order.device)
    for rows in torch.split(order, settings.batch_size):
        images = data.images(rows)
        with training_precision(images.device):
            found = loss(network, images, generator)
        moving.step(found)
        total += found.detach() * len(rows)
    return float(total) / len(data)
