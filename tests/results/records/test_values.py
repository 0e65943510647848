"""How numbers are written."""

import pytest

from results.records.values import counted, number_text, signed_text, value_text
from trainables.records.value import Measured


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0.000"), (0.8434, "0.843"), (0.0001, "0.0001"), (-0.00052, "-0.00052"),
     (12.3456, "12.346"), (1234.56, "1235"), (12345678.0, "1.235e+07")],
)  # fmt: skip
def test_numbers_are_short_and_keep_tiny_ones_apart_from_zero(number: float, text: str) -> None:
    assert number_text(number) == text


def test_values_carry_their_interval_and_differences_their_sign() -> None:
    assert value_text(Measured(0.843, 0.801, 0.877, 270)) == "0.843 [0.801, 0.877]"
    assert (signed_text(0.1), signed_text(-0.1)) == ("+0.100", "-0.100")
    assert (counted(1, "trial"), counted(1234, "trial")) == ("1 trial", "1,234 trials")
