"""How far a training got, kept from time to time so that another process can go on from there.

What is kept is all that the rest of the training depends on, as tensors and JSON: no pickle. On the
CPU a training that was interrupted and resumed ends in the same bits as one that never was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from trainables.device import ran_out_of_memory, rng_state, set_rng_state
from trainables.errors import StorageError, TrainingDivergedError
from trainables.storage.artefacts import Artefact, ArtefactStore

logger = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
"""Least time between two checkpoints; a shorter training keeps none."""
LARGEST_SHARE = 0.01
"""Share of a training's time that keeping checkpoints may take: on slow storage they are fewer."""

T = TypeVar("T")


class DoesNotFitError(RuntimeError):
    """What was kept is not a state of this training."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Moving:
    """What a training's steps change, and so what it takes to go on with them."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    """The training's own; torch's global ones, which dropout draws from, are kept alongside it."""

    def step(self, loss: Tensor) -> None:
        """Change the model by one step down the gradient of a loss ()."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""
        return {
            "device": self.generator.device.type,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": self._generators(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over.

        Raises one of several errors, maybe after a part of it, where the state is another one's.
        """
        device = self.generator.device.type
        if state["device"] != device:
            raise ValueError(f"it was kept on {state['device']}, and this is {device}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, own in self.optimizer.state.items():
            for name, value in own.items():
                # Laid out like the weight: on a GPU the optimiser is slow where they differ.
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    own[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generators"]["own"])
        torch.set_rng_state(state["generators"]["cpu"])
        if device != "cpu":
            set_rng_state(self.generator.device, state["generators"][device])

    def _generators(self) -> dict[str, Tensor]:
        states = {"own": self.generator.get_state(), "cpu": torch.get_rng_state()}
        of_device = rng_state(self.generator.device)
        return states if of_device is None else states | {self.generator.device.type: of_device}


class Checkpoints:
    """Where one training keeps how far it got, next to the artefact that it builds."""

    def __init__(self, store: ArtefactStore, key: str) -> None:
        self._store, self._key = store, key
        self._last = time.monotonic()
        self._took = 0.0

    def resume(self, restore: Callable[[Mapping[str, Any]], None]) -> None:
        """Hand over the state that was kept, if one was.

        Raises DoesNotFitError where it cannot be restored: what it was to go on with is then
        neither the old training nor a new one.
        """
        kept = self._store.progress(self._key)
        if kept is None:
            return
        try:
            restore(unpacked(kept))
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            if ran_out_of_memory(str(error)):
                raise  # the device's fault, and not that of what was kept
            raise DoesNotFitError(" ".join(str(error).split())) from error

    def keep(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the state, if it is time for that; where it cannot be, the training goes on."""
        started = time.monotonic()
        if started - self._last < max(EVERY_SECONDS, self._took / LARGEST_SHARE):
            return
        try:
            self._store.keep_progress(self._key, packed(state()))
        except (StorageError, TypeError, ValueError) as error:
            logger.warning("%s: this far no checkpoint can be kept (%s)", self._key, error)
        self._last = time.monotonic()
        self._took = self._last - started


class Resumable(Protocol):
    """A training, epoch by epoch, that can go on from a state that was kept."""

    @property
    def epochs_done(self) -> int:
        """Epochs that lie behind it."""

    def state(self) -> Mapping[str, Any]:
        """Return all that the epochs to come depend on, as tensors and plain values."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over."""


def remaining_epochs(
    training: Resumable, epochs: int, checkpoints: Checkpoints | None
) -> Iterator[int]:
    """Yield the numbers of the epochs to come, from the last checkpoint where there is one.

    After each but the last the state is kept, if it is time for that. A training that leaves the
    loop keeps none. Raises DoesNotFitError for the checkpoint of another training.
    """
    if checkpoints is not None:
        checkpoints.resume(training.restore)
    for epoch in range(training.epochs_done, epochs):
        yield epoch
        if checkpoints is not None and epoch + 1 < epochs:
            checkpoints.keep(training.state)


def resumable(store: ArtefactStore, key: str, attempt: Callable[[Checkpoints], T]) -> T:
    """Run a training that goes on from its checkpoint; from the start where that does not fit."""
    try:
        return attempt(Checkpoints(store, key))
    except DoesNotFitError as error:
        logger.warning("checkpoint of %s does not fit (%s); the training starts again", key, error)
        store.forget_progress(key)
        return attempt(Checkpoints(store, key))
    except TrainingDivergedError:
        store.forget_progress(key)  # it would lead to the same end
        raise


def packed(state: Mapping[str, Any]) -> Artefact:
    """Return nested mappings, lists and tuples of tensors and plain values as an artefact.

    Raises TypeError for a value of another type.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, Mapping):  # as pairs, since its keys need not be text
            return {"mapping": [[plain(key), plain(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [plain(item) for item in value]}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a {type(value).__name__} is neither tensor nor plain value")

    tree = plain(state)
    return Artefact(tensors, {"state": tree})


def unpacked(artefact: Artefact) -> Any:
    """Restore what was packed; raises LookupError or TypeError for another artefact."""

    def full(value: Any) -> Any:
        if isinstance(value, list):
            return [full(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            return artefact.tensors[content]
        if kind == "tuple":
            return tuple(full(item) for item in content)
        return {full(key): full(item) for key, item in content}

    return full(artefact.values["state"])
