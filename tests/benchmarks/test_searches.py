"""The recorded landscape is whole, and searches are compared on it as they should be."""

import math

import numpy as np
import pytest

from benchmarks import search_recorded, searches
from search_spaces import Overrides, Space, load_space
from trainables.errors import InputError

ROWS = search_recorded.read_rows()


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space(str(search_recorded.SPACE), Overrides(trials=13))


def test_every_stack_that_can_be_drawn_was_run(space: Space) -> None:
    every = search_recorded.stacks(space)
    assert len(every) == len(ROWS) == 174
    landscape = search_recorded.Recorded(space, ROWS)
    for flat in every:
        truth = landscape.truth(flat)
        assert truth is None or (len(truth) == 4 and bool(((truth >= 0) & (truth <= 1)).all()))
    with pytest.raises(InputError, match="1 stacks of recorded are not recorded"):
        search_recorded.Recorded(space, ROWS[1:])


def test_a_hypervolume_counts_what_is_believed(space: Space) -> None:
    rows = [dict(row) for row in ROWS]
    # Kept apart from every other: one stack by its attacks, one by its clean images.
    values = {0: (0.5, 0.5, 0.5, 0.5), 1: (0.75, 0.25, 0.5, 0.5)}
    for place, found in values.items():
        for objective, value in zip(space.objectives, found, strict=True):
            rows[place][objective.metric] = [value, 100]
    landscape = search_recorded.Recorded(space, rows)
    stacks = search_recorded.stacks(space)
    keys = [search_recorded._key(space, flat) for flat in stacks]
    two = [
        stacks[keys.index(search_recorded._key(space, rows[place]["stack"]))] for place in (0, 1)
    ]
    # (0.5 * 0.5 + 0.25 * 0.25) * 0.5 * 0.5, from the worst of each objective.
    assert searches.hypervolume(space, landscape, two) == pytest.approx(0.3125 * 0.25)
    rows[1]["masked"] = True
    masked = search_recorded.Recorded(space, rows)
    assert searches.hypervolume(space, masked, two) == pytest.approx(0.25 * 0.25)


def test_a_search_is_compared_with_chance_seed_by_seed(
    space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    landscape = search_recorded.Recorded(space, ROWS)
    volumes = searches.compare(space, [landscape] * 2, ["effects"])
    assert list(volumes) == ["random", "effects"]
    every = searches.hypervolume(space, landscape, search_recorded.stacks(space))
    assert all(0 < volume <= every for found in volumes.values() for volume in found)
    assert f"{np.mean(volumes['effects']):.4f}" in capsys.readouterr().out


def test_the_interval_of_a_difference_is_students() -> None:
    mean, low, high = searches.paired_interval([1.0, 2.0, 3.0])
    half = 4.302653 * 1.0 / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))
