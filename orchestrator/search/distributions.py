"""Optuna's distributions of everything that a space draws."""

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search_spaces import Space
from search_spaces.domains import AnyOf, Choice, Domain, Range
from search_spaces.schema import NONE


def space_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the distribution of every flat name that a draw of the space may have."""
    found: dict[str, BaseDistribution] = {}
    if len(space.scenarios) > 1:
        found["scenario"] = CategoricalDistribution(list(range(len(space.scenarios))))
    if len(space.file.seeds) > 1:
        found["seed"] = CategoricalDistribution(space.file.seeds)
    for slot, names in space.slots.items():
        found[f"slot.{slot}"] = CategoricalDistribution([NONE, *names])
    for name, domain in space.named_domains.items():
        found |= _distributions(domain, name)
    return found


def distribution_of(span: Range) -> FloatDistribution | IntDistribution:
    """Return the distribution of a range."""
    if span.integer:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


def _distributions(domain: Domain, name: str) -> dict[str, BaseDistribution]:
    if isinstance(domain, Range):
        return {name: distribution_of(domain)}
    if isinstance(domain, Choice):
        # A single option is fixed and never drawn.
        return {name: CategoricalDistribution(domain.labels)} if len(domain.options) > 1 else {}
    assert isinstance(domain, AnyOf)
    found: dict[str, BaseDistribution] = {
        f"{name}.branch": CategoricalDistribution(list(range(len(domain.branches))))
    }
    for number, branch in enumerate(domain.branches):
        found |= _distributions(branch, f"{name}.{number}")
    return found
