"""Sizes in pixels as people write them: 0.03, 8/255, or a multiple of the data set's radius."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from trainables.errors import InputError

_RADIUS = re.compile(r"^(?P<number>.*?)\s*radius$")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, absolute or relative to the data set's standard radius."""

    value: float
    of_radius: bool = False

    def resolve(self, radius: float) -> float:
        """Return the absolute number for a data set whose standard radius is `radius`."""
        return self.value * radius if self.of_radius else self.value


def parse_quantity(text: str | float | int) -> Quantity:
    """Read a number, a fraction such as 8/255, or a multiple such as '0.5 radius'.

    Raises InputError where the text is none of the three or not finite.
    """
    if isinstance(text, bool):
        raise InputError(f"{text!r} is not a number")
    if isinstance(text, int | float):
        return _finite(Quantity(float(text)), text)
    relative = _RADIUS.match(text.strip())
    number = relative["number"] if relative else text.strip()
    try:
        value = float(Fraction(number)) if "/" in number else float(number)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"{text!r} is not a number; write 0.03, 8/255 or '0.5 radius' (the data set's)"
        ) from None
    return _finite(Quantity(value, of_radius=relative is not None), text)


def _finite(quantity: Quantity, text: object) -> Quantity:
    if not math.isfinite(quantity.value):
        raise InputError(f"{text!r} is not a finite number")
    return quantity
