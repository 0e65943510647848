"""The figures of the images that a detector finds hardest."""

import numpy as np
import pytest
import torch
from scipy import special

from trainables.records.value import Measured
from trainables.threats.detection.hardest import Suspects, comparable, hardest, level_of


def _suspects(count: int, shift: float, seed: int = 0) -> Suspects:
    generator = np.random.default_rng(seed)
    innocent = generator.normal(size=count)
    return Suspects(generator.normal(size=count) + shift, innocent)


def test_figures_are_of_the_images_that_fool() -> None:
    attacked, innocent = torch.arange(10.0, 20.0), torch.arange(0.0, 10.0)
    success = torch.arange(10) < 4
    found = Suspects.of(attacked, innocent, success)
    assert len(found) == 4 and found.area().n == found.found().n == 4
    assert found.area().value == found.found().value == 1.0
    turned = Suspects.of(innocent, attacked, success)
    assert turned.area().value == turned.found().value == 0.0


def test_an_attack_that_hardly_succeeds_is_not_compared() -> None:
    every = {"many": _suspects(100, 1.0), "half": _suspects(50, 0.0), "few": _suspects(49, -3.0)}
    assert set(comparable(every)) == {"many", "half"}
    assert comparable({"one": _suspects(0, 0.0)}) == {} == comparable({})


def test_the_lowest_figure_is_the_headline_and_its_interval_holds_all() -> None:
    figures = {"a": Measured(0.9, 0.8, 0.95, 50), "b": Measured(0.7, 0.5, 0.97, 40)}
    assert hardest(figures) == ("b", Measured(0.7, 0.5, 0.95, 40))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_the_lowest_of_equal_attacks(shift: float) -> None:
    # Worst for a choice: three attacks that are as hard as each other.
    truth = float(special.ndtr(shift / np.sqrt(2)))
    covered = 0
    for seed in range(200):
        three = {str(part): _suspects(60, shift, 3 * seed + part) for part in range(3)}
        _, found = hardest({name: row.area(level_of(3)) for name, row in three.items()})
        covered += found.low <= truth <= found.high
    assert covered / 200 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)
