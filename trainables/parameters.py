"""What a parameter may be: declared once with its default; checked, parsed, listed from there."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from trainables.errors import InputError
from trainables.records.quantity import parse_quantity

Kind = Literal["float", "int", "bool", "word"]
PIXELS = "pixels"
"""Unit of a size in [0, 1] pixel values, which may be written as a multiple of the radius."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """The declared meaning and range of one field of a defense, a threat or a training."""

    kind: Kind
    meaning: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    words: tuple[str, ...] = ()
    """Words that are accepted, besides numbers where `kind` is not 'word'; empty: any word."""
    many: bool = False
    """Whether several values may be given at once: then the field holds a tuple, also of one."""


def parameter(default: Any, *, kind: Kind, meaning: str, **limits: Any) -> Any:
    """Declare a dataclass field with its default and its Parameter."""
    declared = Parameter(kind=kind, meaning=meaning, **limits)
    if declared.many and default is not None and not isinstance(default, tuple):
        default = (default,)
    return dataclasses.field(default=default, metadata={"parameter": declared})


def declared_parameters(owner: type) -> dict[str, Parameter]:
    """List the declared parameters of a dataclass, in order."""
    return {
        field.name: field.metadata["parameter"]
        for field in dataclasses.fields(owner)
        if "parameter" in field.metadata
    }


def check_parameters(instance: Any, owner: str) -> None:
    """Raise InputError where a declared field of `instance` holds what it may not.

    None is let through: it stands for "not given" where a field defaults to it.
    """
    for name, declared in declared_parameters(type(instance)).items():
        value = getattr(instance, name)
        if value is not None:
            check_value(value, declared, f"{owner}: {name}")


def build(owner_type: type[T], raw: Mapping[str, Any], *, owner: str, radius: float) -> T:
    """Build a dataclass from what a user wrote (text, numbers, lists).

    Raises InputError for an unknown name (with the known ones) or a value out of its range.
    """
    declared = declared_parameters(owner_type)
    unknown = sorted(set(raw) - set(declared))
    if unknown:
        known = ", ".join(declared) or "none: it takes no parameters"
        raise InputError(f"{owner}: unknown parameter {unknown[0]!r}; known: {known}")
    defaults = {field.name: field.default for field in dataclasses.fields(owner_type)}  # type: ignore[arg-type]
    values = {
        name: parse_value(value, declared[name], f"{owner}: {name}", radius)
        for name, value in raw.items()
        if not (value is None and defaults[name] is None)  # None there says "not given"
    }
    return owner_type(**values)


def plain_parameters(instance: Any) -> dict[str, Any]:
    """Return the declared parameters of an instance as plain JSON values.

    A set of one is that one, as it may be written, so that both ways to write it are one identity.
    """
    return {name: _plain(getattr(instance, name)) for name in declared_parameters(type(instance))}


def parse_value(raw: Any, declared: Parameter, place: str, radius: float) -> Any:
    """Turn what a user wrote into the value that the parameter holds: a tuple where it may hold
    several.
    """
    if declared.many:
        several = raw if isinstance(raw, list | tuple) else (raw,)
        return tuple(_parse_one(single, declared, place, radius) for single in several)
    if isinstance(raw, list | tuple):
        raise InputError(f"{place} takes one value, not {list(raw)}")
    return _parse_one(raw, declared, place, radius)


def describe_parameters(owner: type) -> dict[str, dict[str, Any]]:
    """Return meaning, default, range and unit of each parameter, as plain JSON values."""
    defaults = {field.name: field.default for field in dataclasses.fields(owner)}
    return {
        name: {
            "meaning": declared.meaning,
            "kind": declared.kind,
            "default": _plain(defaults[name]),
            "low": declared.low,
            "high": declared.high,
            "words": list(declared.words),
            "unit": declared.unit,
            "several": declared.many,
        }
        for name, declared in declared_parameters(owner).items()
    }


def _parse_one(raw: Any, declared: Parameter, place: str, radius: float) -> Any:
    if declared.kind == "word" or raw in declared.words:
        return str(raw)
    if declared.kind == "bool":
        return _parse_bool(raw, place)
    try:
        quantity = parse_quantity(raw)
    except (InputError, AttributeError, TypeError):
        words = f", or one of: {', '.join(declared.words)}" if declared.words else ""
        example = "0.03, 8/255 or '0.5 radius'" if declared.unit == PIXELS else "a number"
        raise InputError(f"{place}: {raw!r} cannot be read; write {example}{words}") from None
    if quantity.of_radius and declared.unit != PIXELS:
        raise InputError(
            f"{place} is not a size in pixels, so it cannot be a multiple of the radius"
        )
    value = quantity.resolve(radius)
    if declared.kind == "int":
        if value != int(value):
            raise InputError(f"{place} must be a whole number, but got {raw!r}")
        return int(value)
    return value


def _parse_bool(raw: Any, place: str) -> bool:
    if isinstance(raw, bool):
        return raw
    if str(raw).lower() in ("true", "false"):
        return str(raw).lower() == "true"
    raise InputError(f"{place} must be true or false, but got {raw!r}")


def check_value(value: Any, declared: Parameter, place: str) -> None:
    """Raise InputError where a value is none that the parameter may hold."""
    if not declared.many:
        if isinstance(value, tuple):
            raise InputError(f"{place} takes one value, not {list(value)}")
        _check_one(value, declared, place)
        return
    if not isinstance(value, tuple):
        raise InputError(f"{place} takes a tuple of values, but got {value!r}")
    if not value:
        raise InputError(f"{place} is empty; name at least one value")
    for single in value:
        _check_one(single, declared, place)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def _check_one(value: Any, declared: Parameter, place: str) -> None:
    if isinstance(value, str):
        if declared.kind != "word" and value not in declared.words:
            raise InputError(f"{place} must be a number, but got {value!r}")
        if declared.words and value not in declared.words:
            raise InputError(f"{place}: unknown {value!r}; known: {', '.join(declared.words)}")
        return
    low = -float("inf") if declared.low is None else declared.low
    high = float("inf") if declared.high is None else declared.high
    if not low <= value <= high:  # NaN is refused here too
        raise InputError(f"{place} must be within [{low:g}, {high:g}], but got {value!r}")
