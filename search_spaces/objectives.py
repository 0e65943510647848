"""What a search optimises and the bounds that it keeps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from search_spaces.schema import ObjectiveSection, SpaceFile
from trainables.errors import InputError
from trainables.metrics import metric

_CONSTRAINT = re.compile(r"^\s*(?P<metric>[\w.]+)\s*(?P<sign><=|>=)\s*(?P<bound>[-+.\deE]+)\s*$")


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric to optimise, its direction, and the worst value that the hypervolume counts from."""

    metric: str
    direction: Literal["maximize", "minimize"]
    worst: float


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound that a trial's metric has to keep."""

    metric: str
    sign: str
    bound: float

    def violation(self, value: float) -> float:
        """Return by how much a value breaks the bound; zero or less keeps it."""
        return value - self.bound if self.sign == "<=" else self.bound - value


def build_objectives(
    sections: Sequence[str | ObjectiveSection], measured: set[str]
) -> tuple[Objective, ...]:
    """Check a space's objectives against what its threats measure.

    Raises InputError for a metric that is unknown, unmeasured, named twice, or that some deployed
    models lack.
    """
    objectives = tuple(_objective(section, measured) for section in sections)
    if len({objective.metric for objective in objectives}) < len(objectives):
        raise InputError("objectives: a metric is named twice")
    return objectives


def _objective(section: str | ObjectiveSection, measured: set[str]) -> Objective:
    if isinstance(section, str):
        section = ObjectiveSection(metric=section)
    name, worst = section.metric, section.worst
    declared = metric(name)
    _check_measured(name, measured, "objectives")
    if declared.may_be_missing or declared.direction == "none":
        raise InputError(
            f"objectives: {name} has no better direction or is missing for some models; "
            "objectives must be defined for every deployed model"
        )
    worst = declared.worst if worst is None else worst
    if worst is None:
        raise InputError(
            f"objectives: {name} has no worst value of its own; write "
            f"{{metric: {name}, worst: ..}}, from which the hypervolume counts"
        )
    return Objective(name, declared.direction, worst)


def build_constraint(text: str, measured: set[str]) -> Constraint:
    """Read 'metric >= number'; InputError says what is wrong with it."""
    match = _CONSTRAINT.match(text)
    if not match:
        raise InputError(f"constraints: {text!r} is invalid; write 'clean_accuracy >= 0.9'")
    metric(match["metric"])
    _check_measured(match["metric"], measured, "constraints")
    try:
        return Constraint(match["metric"], match["sign"], float(match["bound"]))
    except ValueError:
        raise InputError(f"constraints: {text!r}: {match['bound']!r} is not a number") from None


def check_allowed(file: SpaceFile, unmeasured: Mapping[str, str]) -> None:
    """Raise InputError where an objective or a constraint is of a metric that is never measured."""
    asked = [o if isinstance(o, str) else o.metric for o in file.objectives]
    asked += [match["metric"] for text in file.constraints if (match := _CONSTRAINT.match(text))]
    for name in asked:
        if name in unmeasured:
            raise InputError(f"{name} cannot be searched by: {unmeasured[name]}")


def _check_measured(name: str, measured: set[str], place: str) -> None:
    if name not in measured:
        raise InputError(f"{place}: none of the space's threats measures {name}; add the threat")
