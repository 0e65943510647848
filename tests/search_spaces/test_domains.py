import pytest

from search_spaces.domains import AnyOf, Choice, Range, parse_domain
from trainables.errors import InputError
from trainables.parameters import PIXELS, Parameter, parse_value

EPS = Parameter(kind="float", meaning="", low=0, high=1, unit=PIXELS, many=True)
NUMBER = Parameter(kind="float", meaning="", low=0, high=100, words=("fit",))
COUNT = Parameter(kind="int", meaning="", low=1, high=100)


def test_a_scalar_is_fixed_and_a_list_is_a_choice() -> None:
    assert parse_domain(3, NUMBER, "x") == Choice((3,))
    assert parse_domain([1, "fit"], NUMBER, "x") == Choice((1, "fit"))


def test_a_list_within_a_choice_is_a_set() -> None:
    domain = parse_domain([["4/255", "8/255"], 0.5], EPS, "eps")
    assert isinstance(domain, Choice)
    assert domain.labels == ["4/255+8/255", 0.5]
    assert domain.read({"eps": "4/255+8/255"}, "eps") == ("4/255", "8/255")
    assert domain.locate((4 / 255, 8 / 255), "eps", EPS, radius=1) == {"eps": "4/255+8/255"}
    assert domain.locate((0.5,), "eps", EPS, radius=1) == {"eps": 0.5}


def test_a_range_of_the_radius_serves_every_data_set() -> None:
    domain = parse_domain({"low": "0.1 radius", "high": "1.5 radius"}, EPS, "eps")
    assert domain.read({"eps": 1.5}, "eps") == "1.5 radius"
    assert domain.locate((12 / 255,), "eps", EPS, radius=8 / 255) == {"eps": 1.5}
    assert domain.locate((13 / 255,), "eps", EPS, radius=8 / 255) is None
    assert domain.locate((4 / 255, 8 / 255), "eps", EPS, radius=8 / 255) is None
    with pytest.raises(InputError, match=r"eps: 1\.6 is outside \[0\.1, 1\.5\]"):
        domain.read({"eps": 1.6}, "eps")


@pytest.mark.parametrize("drawn", [0.1, 1 / 3, 1.4999999999999998, 1e-5 + 0.1])
def test_a_drawn_multiple_of_the_radius_is_built_to_the_last_bit(drawn: float) -> None:
    domain = parse_domain({"low": "0.1 radius", "high": "1.5 radius"}, EPS, "eps")
    written = domain.read({"eps": drawn}, "eps")
    assert parse_value(written, EPS, "eps", radius=8 / 255) == (drawn * (8 / 255),)


def test_any_of_finds_the_branch_that_holds_a_value() -> None:
    domain = parse_domain({"any_of": [{"low": 1, "high": 5}, ["fit"]]}, NUMBER, "T")
    assert isinstance(domain, AnyOf)
    assert domain.locate("fit", "T", NUMBER, 1) == {"T.branch": 1}
    assert domain.locate(1.5, "T", NUMBER, 1) == {"T.branch": 0, "T.0": 1.5}
    assert domain.read({"T.branch": 1}, "T") == "fit"


def test_points_of_a_range_are_spaced_as_asked() -> None:
    plain = parse_domain({"low": 0, "high": 1, "num": 3}, NUMBER, "x")
    logarithmic = parse_domain({"low": 1, "high": 100, "log": True, "num": 3}, NUMBER, "x")
    whole = parse_domain({"low": 1, "high": 4, "num": 10}, COUNT, "x")
    assert isinstance(plain, Range) and isinstance(logarithmic, Range) and isinstance(whole, Range)
    assert plain.points() == [0, 0.5, 1]
    assert logarithmic.points() == pytest.approx([1, 10, 100])
    assert whole.points() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [1, 1],
        {"low": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 0, "high": 1, "logarithmic": True},
        {"low": 0, "high": 1, "num": 0},
        {"low": 0, "high": 1, "num": 2.5},
        {"low": 0, "high": 1, "log": "yes"},
        {"low": "0.1 radius", "high": 1},
        {"any_of": []},
        "eight",
        [["1", "2"]],
    ],
)
def test_what_is_no_domain_is_refused_with_its_place(raw: object) -> None:
    with pytest.raises(InputError, match=r"temperature\.T"):
        parse_domain(raw, NUMBER, "temperature.T")
