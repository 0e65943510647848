"""What a space may draw at its extremes: values that a defense refuses together are found there.

Each value may be allowed and two of them together not, such as few draws and a small level of a
test. A trial that draws them would fail; so the space is refused before anything runs.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

from search_spaces.domains import AnyOf, Domain, Range
from trainables.defenses import build_defense
from trainables.errors import InputError


def check_extremes(space: str, domains: Mapping[str, Mapping[str, Domain]], radius: float) -> None:
    """Raise InputError where a defense refuses values that the space may draw for it together.

    Tried are the ends of every two parameters. What grows or falls with each of two parameters has
    its extremes there.
    """
    for defense, parameters in domains.items():
        for raw in _corners({name: extremes(domain) for name, domain in parameters.items()}):
            try:
                build_defense(defense, raw, radius=radius)
            except InputError as error:
                shown = ", ".join(f"{name}={value}" for name, value in raw.items())
                raise InputError(
                    f"space {space}: it may draw {defense}({shown}), which cannot be: {error}"
                ) from None


def extremes(domain: Domain) -> tuple[Any, ...]:
    """Return the least and the greatest number of a domain, and all that is no number."""
    if isinstance(domain, AnyOf):
        return tuple(value for branch in domain.branches for value in extremes(branch))
    if isinstance(domain, Range):
        return tuple(domain.read({"end": end}, "end") for end in (domain.low, domain.high))
    numbers = [each for each in domain.options if _is_number(each)]
    others = [each for each in domain.options if not _is_number(each)]
    return tuple(dict.fromkeys((*(end(numbers) for end in (min, max) if numbers), *others)))


def _corners(ends: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Return each pair of ends of every two parameters, the others at an end of theirs."""
    one = {name: values[0] for name, values in ends.items()}
    for names in combinations(ends, min(2, len(ends))):
        for values in product(*(ends[name] for name in names)):
            yield {**one, **dict(zip(names, values, strict=True))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
