import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.errors import InputError
from trainables.records.quantity import Quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("0.03", Quantity(0.03)),
        (0.03, Quantity(0.03)),
        (3, Quantity(3.0)),
        ("8/255", Quantity(8 / 255)),
        (" 8 / 255 ".replace(" ", ""), Quantity(8 / 255)),
        ("0.5 radius", Quantity(0.5, of_radius=True)),
        ("0.5radius", Quantity(0.5, of_radius=True)),
        ("1/2 radius", Quantity(0.5, of_radius=True)),
        ("1e-3", Quantity(0.001)),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str | float, quantity: Quantity) -> None:
    assert parse_quantity(text) == quantity


@pytest.mark.parametrize(
    "text", ["", "radius", "eps", "1/0", "8/255/2", "nan", "inf", "1e999", "0.5 radii", "-inf"]
)
def test_what_is_no_number_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match="number"):
        parse_quantity(text)


def test_truth_values_and_infinite_numbers_are_no_sizes() -> None:
    for value in (True, False, float("nan"), float("inf")):
        with pytest.raises(InputError):
            parse_quantity(value)


def test_a_multiple_needs_a_radius_and_an_absolute_size_does_not() -> None:
    assert parse_quantity("0.5 radius").resolve(0.15) == pytest.approx(0.075)
    assert parse_quantity("0.5").resolve(0.15) == 0.5


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_fraction_is_the_nearest_float(numerator: int, denominator: int) -> None:
    assert parse_quantity(f"{numerator}/{denominator}").value == numerator / denominator
