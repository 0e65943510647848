from dataclasses import dataclass
from typing import Any

import pytest

from trainables.errors import InputError
from trainables.parameters import (
    PIXELS,
    build,
    check_parameters,
    declared_parameters,
    describe_parameters,
    parameter,
    plain_parameters,
)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """One parameter of every sort."""

    eps: tuple[float, ...] = parameter(
        (0.1,), kind="float", meaning="radius", low=0.0, high=1.0, unit=PIXELS, many=True
    )
    steps: int = parameter(3, kind="int", meaning="steps", low=1, high=10)
    start: bool = parameter(False, kind="bool", meaning="start")
    kind: str = parameter("a", kind="word", meaning="kind", words=("a", "b"))
    T: float | str = parameter(1.0, kind="float", meaning="T", low=0.1, words=("fit",))
    further: tuple[float, ...] | None = parameter(
        None, kind="float", meaning="more", low=0.0, many=True
    )
    undeclared: int = 7

    def __post_init__(self) -> None:
        check_parameters(self, "owner")


def _built(**raw: Any) -> Owner:
    return build(Owner, raw, owner="owner", radius=0.2)


@pytest.mark.parametrize(
    ("raw", "field", "value"),
    [
        ({"eps": "8/255"}, "eps", (8 / 255,)),
        ({"eps": "0.5 radius"}, "eps", (0.1,)),
        ({"eps": ["0.1", "1 radius"]}, "eps", (0.1, 0.2)),
        ({"eps": [0.3]}, "eps", (0.3,)),
        ({"steps": "4"}, "steps", 4),
        ({"steps": 4.0}, "steps", 4),
        ({"start": "True"}, "start", True),
        ({"start": False}, "start", False),
        ({"kind": "b"}, "kind", "b"),
        ({"T": "fit"}, "T", "fit"),
        ({"T": "2"}, "T", 2.0),
        ({"further": None}, "further", None),
        ({"further": 2}, "further", (2.0,)),
    ],
)
def test_values_are_read_as_declared(raw: dict[str, Any], field: str, value: object) -> None:
    found = getattr(_built(**raw), field)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"epsilon": 1}, "owner: unknown parameter 'epsilon'; known: eps, steps"),
        ({"undeclared": 1}, "unknown parameter 'undeclared'"),
        ({"eps": 1.5}, r"eps must be within \[0, 1\], but got 1.5"),
        ({"eps": [0.1, 2]}, "eps must be within"),
        ({"eps": []}, "eps is empty"),
        ({"eps": "many"}, "eps: 'many' cannot be read; write 0.03, 8/255 or '0.5 radius'"),
        ({"eps": None}, "eps: None cannot be read"),
        ({"eps": True}, "eps: True cannot be read"),
        ({"eps": [[0.1]]}, "cannot be read"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": 0}, "steps must be within"),
        ({"steps": [1, 2]}, "steps takes one value"),
        ({"steps": "1 radius"}, "steps is not a size in pixels"),
        ({"start": "maybe"}, "start must be true or false"),
        ({"kind": "c"}, "unknown 'c'; known: a, b"),
        ({"T": "guess"}, "one of: fit"),
        ({"T": "nan"}, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_with_place_and_choices(
    raw: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _built(**raw)


@pytest.mark.parametrize(
    "values",
    [{"eps": (float("nan"),)}, {"eps": (0.1, -1.0)}, {"eps": ()}, {"eps": 0.1}, {"steps": 99},
     {"steps": (1, 2)}, {"kind": "z"}, {"T": "z"}],
)  # fmt: skip
def test_values_given_in_code_are_checked_too(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="owner: "):
        Owner(**values)


def test_only_declared_fields_are_parameters() -> None:
    assert list(declared_parameters(Owner)) == ["eps", "steps", "start", "kind", "T", "further"]
    assert describe_parameters(Owner)["steps"] == {
        "meaning": "steps", "kind": "int", "default": 3, "low": 1, "high": 10, "words": [],
        "unit": "", "several": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "owner",
    [
        Owner(),
        Owner(eps=(0.1, 0.2)),
        Owner(eps=(0.1,)),
        Owner(T="fit", further=(0.5,)),
        Owner(steps=9),
    ],
)
def test_plain_parameters_build_the_same_again(owner: Owner) -> None:
    plain = plain_parameters(owner)
    again = _built(**plain)
    assert plain_parameters(again) == plain


def test_a_set_of_one_is_that_one() -> None:
    alone, several = _built(eps=0.3), _built(eps=[0.3, 0.4])
    assert alone == _built(eps=[0.3])
    assert plain_parameters(alone)["eps"] == 0.3 and plain_parameters(several)["eps"] == [0.3, 0.4]
    assert describe_parameters(Owner)["eps"]["default"] == 0.1


def test_a_single_default_of_several_is_a_tuple_too() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own:
        eps: tuple[float, ...] = parameter(0.2, kind="float", meaning="radius", many=True)

    assert Own().eps == (0.2,)
