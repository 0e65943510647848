"""Everything that a space can draw, one after the other: grid search and exhausted spaces."""

from collections.abc import Callable, Iterator, Sequence

from search_spaces.domains import AnyOf, Domain, Flat, Range, Scalar
from trainables.errors import InputError


class NotEnumerableError(InputError):
    """A range without a number of points stands in the way of an enumeration."""


def check_points(domain: Domain, name: str) -> None:
    """Raise NotEnumerableError where a range of the domain has no number of points."""
    if isinstance(domain, AnyOf):
        for branch in domain.branches:
            check_points(branch, name)
    elif isinstance(domain, Range) and domain.num is None:
        raise NotEnumerableError(
            f"{name}: a range can only be enumerated with num: points (a grid search needs it)"
        )


class _Odometer:
    """A chooser that goes through every sequence of answers, the last question turning fastest."""

    def __init__(self) -> None:
        self.path: list[int] = []
        self.counts: list[int] = []
        self.depth = 0

    def choose(self, name: str, options: Sequence[Scalar]) -> Scalar:
        """Return the option at the current position of this question."""
        del name
        if self.depth == len(self.path):
            self.path.append(0)
            self.counts.append(len(options))
        picked = options[self.path[self.depth]]
        self.depth += 1
        return picked

    def number(self, name: str, span: Range) -> float | int:
        """Return a point of the range."""
        check_points(span, name)
        index = self.choose(name, list(range(len(span.points()))))
        return span.points()[int(index)]

    def turn(self) -> bool:
        """Go to the next sequence of answers, or say that there is none."""
        while self.path and self.path[-1] + 1 == self.counts[-1]:
            self.path.pop()
            self.counts.pop()
        if not self.path:
            return False
        self.path[-1] += 1
        self.depth = 0
        return True


def enumerate_draws(draw: Callable[[_Odometer], Flat]) -> Iterator[Flat]:
    """Return every draw of a space; NotEnumerableError names a range without points."""
    odometer = _Odometer()
    while True:
        yield draw(odometer)
        if not odometer.turn():
            return
