"""What users write on the command line, read into the project's own values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.sweep.resources import AUTO, Gpus
from trainables.errors import InputError
from trainables.trial import limits

if TYPE_CHECKING:
    from trainables.datasets import Resize
    from trainables.defenses import Stack
    from trainables.threats import Threat

CLEAN = "clean"
# A plus sign joins the values of a set, but not within a number such as 1e+3.
_JOIN = re.compile(r"(?<![eE])\+")


def parse_named(text: str) -> tuple[str, dict[str, Any]]:
    """Read NAME[:param=value,..]; several values of a parameter are joined by +.

    A name may be an import path, package.module:Class[:param=value,..].
    """
    from trainables.defenses import DEFENSES

    name, *rest = text.split(":")
    if rest and "=" not in rest[0] and name not in DEFENSES:
        name, rest = f"{name}:{rest[0]}", rest[1:]
    parameters: dict[str, Any] = {}
    for part in filter(None, ":".join(rest).split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise InputError(f"{text!r}: write NAME:param=value,param=value")
        if key.strip() in parameters:
            raise InputError(f"{text!r}: {key.strip()} is given twice; join its values by +")
        values = _JOIN.split(value.strip())
        parameters[key.strip()] = values if len(values) > 1 else values[0]
    return name.strip(), parameters


def parse_resize(text: str) -> Resize:
    """Read how images become square."""
    from trainables.datasets import RESIZES

    known = {name: name for name in RESIZES}
    if text not in known:
        raise InputError(f"--resize {text!r}: known: {', '.join(RESIZES)}")
    return known[text]


def parse_stack(texts: Sequence[str], radius: float) -> Stack:
    """Read the defenses of a stack."""
    from trainables.defenses import build_defense, build_stack

    named = [parse_named(text) for text in texts]
    return build_stack(build_defense(name, raw, radius=radius) for name, raw in named)


def parse_threats(text: str | None, radius: float) -> tuple[Threat, ...]:
    """Read a,b as threats with their defaults; `clean` stands for none, nothing for all of them."""
    from trainables.threats import THREATS, build_threat

    if text is None:
        return tuple(build_threat(name, {}, radius=radius) for name in THREATS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"--threats {text!r} names none; known: {', '.join(THREATS)}, or clean")
    return tuple(build_threat(name, {}, radius=radius) for name in names if name != CLEAN)


def parse_gpus(text: str) -> Gpus:
    """Read a number of GPUs, or auto."""
    if text == AUTO:
        return AUTO
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"--gpus-per-trial {text!r}: write a share of one GPU such as 0.25, a whole number, "
            "or auto"
        ) from None


def parse_duration(text: str, option: str = "--time-budget") -> float:
    """Read 90s, 30m, 2h or 1d as seconds; an InputError names the option."""
    try:
        return limits.parse_duration(text)
    except InputError as error:
        raise InputError(f"{option} {error}") from None
