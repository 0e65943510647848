"""Which pairs are drawn, and which share a twin."""

from __future__ import annotations

from itertools import chain

import pytest

from trainables.threats.backdoor.pairs import MOST_IN_A_TWIN, draw_pairs


@pytest.mark.parametrize(
    ("classes", "number", "groups", "drawn"),
    [
        (10, 4, 1, 4),
        (10, 7, 2, 7),
        (20, 6, 2, 6),
        (4, 4, 2, 4),
        (3, 4, 4, 4),
        (2, 4, 1, 1),
        (6, 0, 0, 0),
    ],
)
def test_pairs_are_as_many_as_there_are_and_share_no_class_in_a_twin(
    classes: int, number: int, groups: int, drawn: int
) -> None:
    found = draw_pairs(classes, number, seed=3, allowed=lambda pair: pair != (1, 0))
    pairs = list(chain.from_iterable(found))
    assert (len(found), len(pairs), len(set(pairs))) == (groups, drawn, drawn)
    assert (1, 0) not in pairs and all(source != target for source, target in pairs)
    for group in found:
        of_group = list(chain.from_iterable(group))
        assert len(set(of_group)) == len(of_group) <= 2 * MOST_IN_A_TWIN


def test_a_seed_draws_the_same_pairs_and_another_one_others() -> None:
    first, again, other = (
        draw_pairs(10, 4, seed=seed, allowed=lambda pair: True) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_what_is_not_allowed_is_not_drawn() -> None:
    found = draw_pairs(10, 50, seed=0, allowed=lambda pair: 7 not in pair)
    assert 7 not in set(chain.from_iterable(chain.from_iterable(found)))
    assert draw_pairs(10, 4, seed=0, allowed=lambda pair: False) == []
