"""What a parameter may be in a space: one value, a choice, a range, or any of several of these.

In a space file: a number or word is fixed; a list is a choice (a list inside it is a set that is
drawn from per image); {low, high, log, num} is a range; {any_of: [..]} joins such domains.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainables.errors import InputError
from trainables.parameters import Parameter, check_value, parse_value
from trainables.records.quantity import parse_quantity

Scalar = str | int | float | bool
Flat = dict[str, Any]
"""What a searcher draws: flat names -> plain values."""


class Chooser(Protocol):
    """Whoever decides: an Optuna trial, or an enumeration of everything."""

    def choose(self, name: str, options: Sequence[Scalar]) -> Scalar:
        """Pick one of the options."""

    def number(self, name: str, span: "Range") -> float | int:
        """Pick a number of the range, in the range's own unit."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Some values; a single one is fixed and is not asked for."""

    options: tuple[Any, ...]
    """As the user wrote them; a tuple is a set."""

    @property
    def labels(self) -> list[Scalar]:
        """The options as plain values: sets joined by +."""
        return [_label(option) for option in self.options]

    def describe(self) -> str:
        """Describe briefly what may be drawn."""
        return ", ".join(str(label) for label in self.labels)

    def draw(self, chooser: Chooser, name: str) -> Flat:
        """Ask for one option."""
        return {name: chooser.choose(name, self.labels)} if len(self.options) > 1 else {}

    def read(self, flat: Mapping[str, Any], name: str) -> Any:
        """Return the value that the flat names stand for, as the user wrote it."""
        label = flat.get(name, self.labels[0])
        if label not in self.labels:
            raise InputError(f"{name}: {label!r} is not one of {self.labels}")
        return self.options[self.labels.index(label)]

    def locate(self, value: Any, name: str, declared: Parameter, radius: float) -> Flat | None:
        """Return the flat names under which a built value is drawn, or None where it is not among
        them.
        """
        for option, label in zip(self.options, self.labels, strict=True):
            if _same(parse_value(option, declared, name, radius), value):
                return {name: label} if len(self.options) > 1 else {}
        return None


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, both included, in absolute units or multiples of the radius."""

    low: float
    high: float
    of_radius: bool
    log: bool
    integer: bool
    num: int | None
    """Points of the range in a grid search."""

    def describe(self) -> str:
        """Describe briefly what may be drawn."""
        unit = " radius" if self.of_radius else ""
        return f"{self.low:g} - {self.high:g}{unit}{', log' if self.log else ''}"

    def draw(self, chooser: Chooser, name: str) -> Flat:
        """Ask for one number."""
        return {name: chooser.number(name, self)}

    def read(self, flat: Mapping[str, Any], name: str) -> Any:
        """Return the number that the flat names stand for, written as a user would."""
        number = flat.get(name, self.points()[0])
        if not self.low <= number <= self.high:
            raise InputError(f"{name}: {number!r} is outside [{self.low:g}, {self.high:g}]")
        return f"{number} radius" if self.of_radius else number

    def locate(self, value: Any, name: str, declared: Parameter, radius: float) -> Flat | None:
        """Return the flat names under which a built value is drawn, or None where it is outside."""
        if declared.many:
            if len(value) > 1:
                return None
            (value,) = value
        if isinstance(value, str | bool):
            return None
        number = value / radius if self.of_radius else value
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        if not self.low - slack <= number <= self.high + slack:
            return None
        return {name: min(max(number, self.low), self.high)}

    def points(self) -> list[float | int]:
        """List `num` equally (with log: geometrically) spaced points, or the two ends."""
        count = self.num or 2
        if count == 1:
            return [self.low]
        if self.log:
            ratio = (self.high / self.low) ** (1 / (count - 1))
            spaced = [self.low * ratio**i for i in range(count)]
        else:
            spaced = [self.low + (self.high - self.low) * i / (count - 1) for i in range(count)]
        spaced[-1] = self.high
        return sorted({round(p) for p in spaced}) if self.integer else spaced


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Several domains, one of which is asked."""

    branches: tuple["Domain", ...]

    def describe(self) -> str:
        """Describe briefly what may be drawn."""
        return " | ".join(branch.describe() for branch in self.branches)

    def draw(self, chooser: Chooser, name: str) -> Flat:
        """Ask for a branch, then ask that."""
        branch = int(chooser.choose(f"{name}.branch", list(range(len(self.branches)))))
        drawn = self.branches[branch].draw(chooser, f"{name}.{branch}")
        return {f"{name}.branch": branch, **drawn}

    def read(self, flat: Mapping[str, Any], name: str) -> Any:
        """Return the value that the flat names stand for, as the branch that was drawn reads it."""
        branch = int(flat.get(f"{name}.branch", 0))
        return self.branches[branch].read(flat, f"{name}.{branch}")

    def locate(self, value: Any, name: str, declared: Parameter, radius: float) -> Flat | None:
        """Return the flat names of the first branch that holds a built value."""
        for number, branch in enumerate(self.branches):
            found = branch.locate(value, f"{name}.{number}", declared, radius)
            if found is not None:
                return {f"{name}.branch": number, **found}
        return None


Domain = Choice | Range | AnyOf


def flat_names(domain: Domain, name: str) -> set[str]:
    """Return the flat names under which a domain may be drawn."""
    if isinstance(domain, AnyOf):
        inner = (flat_names(b, f"{name}.{i}") for i, b in enumerate(domain.branches))
        return {f"{name}.branch"}.union(*inner)
    return set() if isinstance(domain, Choice) and len(domain.options) == 1 else {name}


def parse_domain(raw: Any, declared: Parameter, place: str) -> Domain:
    """Read a domain from a space file; InputError names the place and what is wrong."""
    if isinstance(raw, Mapping):
        if set(raw) == {"any_of"} and isinstance(raw["any_of"], list) and raw["any_of"]:
            return AnyOf(tuple(parse_domain(branch, declared, place) for branch in raw["any_of"]))
        return _parse_range(raw, declared, place)
    if isinstance(raw, list):
        if not raw:
            raise InputError(f"{place}: the choice is empty; list at least one value")
        options = tuple(tuple(option) if isinstance(option, list) else option for option in raw)
        if len({str(_label(option)) for option in options}) < len(options):
            raise InputError(f"{place}: a value appears twice in {raw}")
    else:
        options = (raw,)
    for option in options:
        _check_written(option, declared, place)
    return Choice(options)


def _parse_range(raw: Mapping[str, Any], declared: Parameter, place: str) -> Range:
    known = {"low", "high", "log", "num"}
    if not {"low", "high"} <= set(raw) or set(raw) - known:
        raise InputError(
            f"{place}: {dict(raw)} is not a range; write {{low: .., high: ..}}, with log: true and "
            "num: points if wanted, or {any_of: [..]}"
        )
    if declared.kind not in ("float", "int"):
        raise InputError(f"{place} is not a number, so it has no range; list its values")
    low, high = parse_quantity(raw["low"]), parse_quantity(raw["high"])
    log, num = raw.get("log", False), raw.get("num")
    if low.of_radius != high.of_radius:
        raise InputError(f"{place}: write both ends as multiples of the radius, or neither")
    if not isinstance(log, bool):
        raise InputError(f"{place}: log must be true or false, but got {log!r}")
    if num is not None and (isinstance(num, bool) or not isinstance(num, int) or num < 1):
        raise InputError(f"{place}: num must be a whole number of at least 1, but got {num!r}")
    if not low.value < high.value:
        raise InputError(f"{place}: low must be below high, but got {raw['low']} and {raw['high']}")
    if log and low.value <= 0:
        raise InputError(f"{place}: a logarithmic range must start above 0, not at {raw['low']}")
    for end in (raw["low"], raw["high"]):
        _check_written(end, declared, place)
    integer = declared.kind == "int"
    if integer:
        return Range(int(low.value), int(high.value), low.of_radius, log, integer, num)
    return Range(low.value, high.value, low.of_radius, log, integer, num)


def _check_written(option: Any, declared: Parameter, place: str) -> None:
    parsed = parse_value(option, declared, place, radius=1.0)
    if "radius" not in str(option):  # what a multiple comes to is known with the data set alone
        check_value(parsed, declared, place)


def _label(option: Any) -> Scalar:
    return "+".join(str(part) for part in option) if isinstance(option, tuple) else option


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    return bool(a == b)
