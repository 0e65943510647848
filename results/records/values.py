"""Measured numbers in words."""

from trainables.records.value import Measured


def value_text(value: Measured) -> str:
    """Write a value with its interval as `0.843 [0.801, 0.877]`."""
    return f"{number_text(value.value)} {interval_text(value)}"


def interval_text(value: Measured) -> str:
    """Write the interval alone as `[0.801, 0.877]`."""
    return f"[{number_text(value.low)}, {number_text(value.high)}]"


def number_text(number: float) -> str:
    """Write a number with three decimals; a tiny one with two digits, a large one with four."""
    if number == 0 or 0.001 <= abs(number) < 100:
        return f"{number:.3f}"
    return f"{number:.2g}" if abs(number) < 1 else f"{number:.4g}"


def signed_text(number: float) -> str:
    """Write a difference with its sign."""
    return f"{'+' if number >= 0 else ''}{number_text(number)}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, such as `1 trial` and `2 trials`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
