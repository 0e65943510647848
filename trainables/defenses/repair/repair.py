"""Repair of a trained network on the clean rows of the calibration pool, as its deployment begins.

Axes: N clean rows.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.defenses.defense import Defense, DefenseContext
from trainables.deployed.predictor import Predictor
from trainables.device import synchronize
from trainables.errors import TrainingDivergedError
from trainables.storage.artefacts import Artefact
from trainables.storage.identity import identity_hash, seed_from
from trainables.training.modes import seeded
from trainables.training.optimizers import SGD
from trainables.training.trained import weights_digest

VERSION = 1
"""Raised when the results of a repair change, so that old ones are not mistaken for new."""
MOMENTUM = 0.9
Repair = Callable[[nn.Module, LabelledImages, torch.Generator], Mapping[str, Any]]
"""(network, clean rows, generator) -> plain facts; it changes the network in place."""
Step = Callable[[Callable[[], Tensor]], Tensor]
"""Takes a step by a loss (), which it may ask for more than once, and returns the first value."""


def repaired(
    defense: Defense, predictor: Predictor, ctx: DefenseContext, repair: Repair
) -> Predictor:
    """Return a predictor with a repaired copy of the network, which keeps its layers.

    The copy is an artefact by weights, clean rows and parameters: what is trained does not depend
    on it, so that one trained network serves all repairs. Raises RuntimeError where something
    stands between the network and its repair.
    """
    if type(predictor) is not Predictor:
        raise RuntimeError(
            f"{defense.name} repairs a network as it was trained, but a {type(predictor).__name__} "
            "is deployed before it; a defense that wraps the network needs a later slot"
        )
    artefact = ctx.fitted(defense.name, lambda: _repaired(defense, predictor, ctx, repair))
    model = copy.deepcopy(predictor.model)
    model.load_state_dict(dict(artefact.tensors))
    return Predictor(model)


def _repaired(
    defense: Defense, predictor: Predictor, ctx: DefenseContext, repair: Repair
) -> Artefact:
    clean = ctx.pools.calibration
    assert clean is not None, "a defense that needs calibration was refused beforehand"
    identity = {
        "version": VERSION,
        "weights": weights_digest(predictor.model.state_dict()),
        "data": content_hash(clean),
        "defense": defense.canonical(),
        "batch_size": ctx.training.batch_size,
        "seed": ctx.seed,
    }

    def build() -> Artefact:
        started = time.perf_counter()
        with (
            seeded(seed_from(identity_hash(identity), defense.name), ctx.device) as generator,
            torch.enable_grad(),
        ):
            model = copy.deepcopy(predictor.model)
            facts = repair(model, clean, generator)
        synchronize(ctx.device)
        seconds = time.perf_counter() - started
        return Artefact(
            model.state_dict(), {**facts, "clean_rows": len(clean), "epoch_seconds": [seconds]}
        )

    return ctx.cached(defense.name, identity, build, deployed=True)


def fine_tune(
    model: nn.Module,
    clean: LabelledImages,
    generator: torch.Generator,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    step: Callable[[torch.optim.Optimizer], Step],
) -> None:
    """Go on training a network in place on clean rows, as they are, by SGD with momentum.

    The learning rate falls to 0 along a cosine; `step` makes the way of taking a step from the
    optimizer. Raises TrainingDivergedError where a loss is not finite.
    """
    model.train().requires_grad_(True)
    optimizer = SGD(model.parameters(), lr=learning_rate, momentum=MOMENTUM)
    per_epoch = len(_batches(torch.arange(len(clean)), batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * per_epoch)
    taken = step(optimizer)
    for epoch in range(epochs):
        order = torch.randperm(len(clean), generator=generator, device=clean.labels.device)
        total = torch.zeros((), device=clean.labels.device)
        for rows in _batches(order, batch_size):
            total += taken(_loss(model, clean.images(rows), clean.labels[rows]))
            schedule.step()
        if not math.isfinite(float(total)):
            raise TrainingDivergedError(
                f"the loss of the repair is {float(total)} in epoch {epoch + 1} of {epochs}; lower "
                "its learning rate"
            )
    model.eval().requires_grad_(False)


def plain_step(optimizer: torch.optim.Optimizer) -> Step:
    """Make the step of the optimizer itself."""

    def taken(loss: Callable[[], Tensor]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    return taken


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    return lambda: F.cross_entropy(model(x).float(), y)


def _batches(order: Tensor, size: int) -> list[Tensor]:
    batches = list(torch.split(order, size))
    # Batch norm cannot be trained on a single image.
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()
    return batches
