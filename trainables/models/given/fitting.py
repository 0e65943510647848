"""A checkpoint's tensors put into a network: by name, all of them, and nothing else.

Prefixes that wrappers of modules leave in the names are taken off, which is put into words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.errors import InputError
from trainables.models.given.checkpoint import Checkpoint

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What DataParallel, torch.compile and training programs put before the names."""
AVERAGED_PREFIXES = ("ema_model.", "model_ema.", "ema.")
"""What they put before the names of averaged weights that stand next to the plain ones."""
_COUNTS = ("n_averaged", "initted", "step")
"""Counts of an average, next to its weights."""
_STEPS = "num_batches_tracked"
"""Batches that a batch norm has seen: old checkpoints lack it, and no answer depends on it."""
_NAMED = 5
"""Keys that an error names."""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Tensors by the names of a network, and what was done to them."""

    state: Mapping[str, Tensor]
    words: tuple[str, ...]


def fit(
    checkpoint: Checkpoint, expected: Mapping[str, Tensor], *, classes: int | None = None
) -> Fitted:
    """Return the checkpoint's tensors by the names that a network expects.

    Raises InputError, listing the names, where one is missing, is not expected or has another
    shape, and where a value is not finite. Where `classes` says how many the network answers, and
    the checkpoint differs from it by that alone, the error says so.
    """
    state, words = _renamed(checkpoint.state, set(expected))
    missing = [name for name in expected if name not in state]
    counts = [name for name in missing if name.rpartition(".")[2] == _STEPS]
    missing = [name for name in missing if name not in counts]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        raise InputError(_mismatch(checkpoint.place, missing, unexpected, len(expected)))
    others = {
        name: (tuple(state[name].shape), tuple(target.shape))
        for name, target in expected.items()
        if name in state and state[name].shape != target.shape
    }
    if (outputs := _other_outputs(others, classes)) is not None:
        raise InputError(
            f"--weights {checkpoint.place}: it answers {outputs} classes, but the data set has "
            f"{classes}; take a data set of its classes"
        )
    if others:
        shapes = [f"{name} {found} instead of {asked}" for name, (found, asked) in others.items()]
        raise InputError(
            f"--weights {checkpoint.place}: other shapes than the model's: {_listed(shapes)}; "
            "name the model that it was saved from"
        )
    _check_finite(checkpoint.place, state)
    if counts:
        words.append(f"it lacks {_STEPS}, on which no answer depends")
    kept = {name: target for name, target in expected.items() if name in counts}
    return Fitted(kept | state, (*checkpoint.words, *words, *_precisions(state, expected)))


def fill(expected: Mapping[str, Tensor], fitted: Fitted) -> None:
    """Copy the tensors into a network's own, in its precision."""
    with torch.no_grad():
        for name, target in expected.items():
            target.copy_(fitted.state[name])


def _renamed(
    state: Mapping[str, Tensor], expected: set[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Take prefixes off the names as long as more of them are expected without."""
    found, words = dict(state), list[str]()
    for prefix in AVERAGED_PREFIXES:
        averaged = _without(prefix, {k: v for k, v in found.items() if k.startswith(prefix)})
        if _known(averaged, expected) > len(expected & found.keys()):
            words.append(f"took the averaged weights, whose names begin with {prefix!r}")
            found = averaged
            break
    counts = [name for name in found if name in _COUNTS and name not in expected]
    if counts and len(counts) < len(found):
        found = {name: value for name, value in found.items() if name not in counts}
        words.append(f"left out the counts of an average: {', '.join(counts)}")
    taken = ""
    while (common := _common_prefix(found)) and not expected & found.keys():
        found, taken = _without(common, found), taken + common
    if taken:
        words.append(f"took the prefix {taken!r} off the names")
    return found, words


def _other_outputs(
    others: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]], classes: int | None
) -> int | None:
    """Return the checkpoint's number of outputs, where its last layer alone has other shapes."""
    numbers = {found[0] for found, _ in others.values() if found}
    last = all(
        asked[:1] == (classes,) and found[1:] == asked[1:] for found, asked in others.values()
    )
    return numbers.pop() if last and len(numbers) == 1 else None


def _known(state: Iterable[str], expected: set[str]) -> int:
    """Count the names that are expected, by themselves or after prefixes are taken off."""
    count = 0
    for name in state:
        while name not in expected and (prefix := _common_prefix([name])):
            name = name.removeprefix(prefix)
        count += name in expected
    return count


def _common_prefix(names: Iterable[str]) -> str | None:
    found = list(names)
    return next((p for p in PREFIXES if found and all(n.startswith(p) for n in found)), None)


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _mismatch(place: str, missing: list[str], unexpected: list[str], number: int) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {number} keys are missing ({_listed(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} are not expected ({_listed(unexpected)})")
    return (
        f"--weights {place}: not the weights of this model: {', and '.join(parts)}; name the model "
        "that it was saved from"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _check_finite(place: str, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"--weights {place}: {name} holds values that are not finite")


def _precisions(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    others = {
        str(value.dtype).removeprefix("torch.")
        for name, value in state.items()
        if value.dtype != expected[name].dtype
    }
    return [f"read {', '.join(sorted(others))} as the model's own precision"] if others else []
