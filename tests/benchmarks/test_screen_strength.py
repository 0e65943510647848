"""The screen is compared under every registered defense, with an interval that is paired."""

import math

import pytest
import torch

from benchmarks import screen_strength
from benchmarks.screen_strength import Outcome, paired_difference, verdict
from trainables.defenses import DEFENSES, build_defense
from trainables.records.value import Measured


def _outcome(effort: list[int], reference: list[int]) -> Outcome:
    return Outcome(torch.tensor(effort).bool(), torch.tensor(reference).bool(), 0.0, 0.0)


def test_every_registered_defense_is_compared_and_can_be_built() -> None:
    cases = screen_strength.cases()
    assert {case.defense for case in cases} == set(DEFENSES)
    assert len({case.label for case in cases}) == len(cases)
    for case in cases:
        build_defense(case.defense, case.raw, radius=screen_strength.RADIUS)


def test_a_line_of_the_table_chooses_its_case_alone() -> None:
    labels = [case.label for case in screen_strength.cases()]
    for label in labels:
        assert [case.label for case in screen_strength._chosen(f"{label}; {label}")] == [label]
    assert len(screen_strength._chosen("input_transformation")) > 1
    with pytest.raises(SystemExit, match="unknown: magic"):
        screen_strength._chosen("none; magic")


def test_a_difference_is_of_the_same_points_of_all_nets() -> None:
    first, second = _outcome([1, 1, 1, 0], [1, 0, 0, 1]), _outcome([0, 1], [0, 1])
    found = paired_difference([first, second])
    # Two kinder and one harder of six; half a point more of each kind of pair: (2.5 - 1.5) / 8.
    half = 1.959964 * math.sqrt((4 / 8 - (1 / 8) ** 2) / 8)
    assert found.value == pytest.approx(1 / 6) and found.n == 6
    assert (found.low, found.high) == pytest.approx((1 / 8 - half, 1 / 8 + half))
    equal = paired_difference([second])
    assert equal.value == 0 and equal.low < 0 < equal.high


@pytest.mark.parametrize(
    ("value", "low", "words"),
    [(0.01, 0.0, "fine"), (0.012, 0.0, "fine"), (0.02, 0.01, "above, within noise"),
     (0.03, 0.013, "TOO KIND")],
)  # fmt: skip
def test_a_verdict_compares_value_and_lower_end(value: float, low: float, words: str) -> None:
    assert verdict(Measured(value, low, 0.1, 240), 0.012) == words
