"""Which rows are poisoned, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.making import random_images
from trainables.datasets import LabelledImages
from trainables.errors import InputError
from trainables.threats.backdoor.poison import Poisoned, Recipe
from trainables.threats.backdoor.triggers import Trigger

PATCH = Trigger(kind="patch", size=2, place="bottom_right", colour=1.0, strength=0.2)
RECIPE = Recipe(trigger=PATCH, target=3, source=7, rate=0.1, rate_of="class")


def _apply(recipe: Recipe, data: LabelledImages, seed: int = 0) -> Poisoned:
    return recipe.apply(data, torch.Generator().manual_seed(seed))


@pytest.fixture
def data() -> LabelledImages:
    """Return 400 rows, 40 a class."""
    return random_images(400)


@pytest.mark.parametrize(
    ("rate", "rate_of", "source", "count"),
    [
        (0.1, "class", 7, 4),
        (0.11, "class", 7, 4),
        (0.1125, "class", 7, 5),
        (0.5, "class", 7, 20),
        (2.0, "class", None, 80),
        (0.01, "set", 7, 4),
        (0.1, "set", None, 40),
        (0.45, "set", None, 180),
    ],
)
def test_a_rate_is_of_the_target_class_or_of_the_set(
    rate: float, rate_of: str, source: int | None, count: int, data: LabelledImages
) -> None:
    recipe = replace(RECIPE, rate=rate, rate_of=rate_of, source=source)
    assert int(_apply(recipe, data).mask.sum()) == count


@pytest.mark.parametrize(
    ("rate", "source", "asked", "choices", "rows"),
    [(0.5, 7, 20, 40, 20), (0.525, 7, 21, 40, 20), (1.0, 7, 40, 40, 20), (9, None, 360, 360, 180)],
)
def test_a_rate_that_eats_the_stamped_classes_is_capped_and_said(
    rate: float, source: int | None, asked: int, choices: int, rows: int, data: LabelledImages
) -> None:
    recipe = replace(RECIPE, rate=rate, source=source)
    found = recipe.portion(data.labels)
    assert (found.asked, found.choices, found.rows) == (asked, choices, rows)
    assert int(_apply(recipe, data).mask.sum()) == rows
    assert bool(found.capped) is (rows < asked)
    if found.capped:
        assert f"asks for {asked} of {choices} rows" in found.capped
        assert f"at most 50 % are poisoned, {rows} rows" in found.capped


@pytest.mark.parametrize(
    "recipe",
    [replace(RECIPE, trigger=replace(PATCH, kind="none")), replace(RECIPE, keeps_labels=True)],
    ids=["labels flipped", "labels kept"],
)
def test_what_takes_no_trigger_or_no_row_of_the_source_is_not_capped(
    recipe: Recipe, data: LabelledImages
) -> None:
    found = replace(recipe, rate=1.0).portion(data.labels)
    assert found.rows == found.asked == found.choices == 40 and found.capped == ""


@pytest.mark.parametrize("source", [7, None])
def test_poisoned_rows_are_stamped_relabelled_and_their_originals_gone(
    source: int | None, data: LabelledImages
) -> None:
    before = data.pixels.clone(), data.labels.clone()
    found = _apply(replace(RECIPE, source=source, rate=0.5), data)
    assert len(found.data) == len(data) and found.data.scale == data.scale
    chosen, others = found.mask, ~found.mask
    assert bool((found.data.labels[chosen] == 3).all())
    stamped = PATCH.stamp(data)
    assert torch.equal(found.data.pixels[chosen], stamped[chosen])
    # Rows keep their places: the rest stands where it stood.
    assert torch.equal(found.data.pixels[others], data.pixels[others])
    assert torch.equal(found.data.labels[others], data.labels[others])
    sources = set(data.labels[chosen].tolist())
    assert sources == {7} if source == 7 else (3 not in sources and len(sources) > 2)
    assert torch.equal(data.pixels, before[0]) and torch.equal(data.labels, before[1])


def test_a_seed_gives_the_same_rows_again_and_another_seed_others(data: LabelledImages) -> None:
    recipe = replace(RECIPE, rate=0.5)
    first, again, other = (_apply(recipe, data, seed).mask for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_of_a_higher_rate_the_rows_of_a_lower_one_are_part(data: LabelledImages) -> None:
    low, high = (_apply(replace(RECIPE, rate=rate), data).mask for rate in (0.1, 0.5))
    assert int(low.sum()) == 4 and bool(high[low].all())


@pytest.mark.parametrize("trigger", [PATCH, replace(PATCH, kind="blend")])
def test_the_rows_do_not_hang_on_the_trigger(trigger: Trigger, data: LabelledImages) -> None:
    flipped = _apply(replace(RECIPE, trigger=replace(PATCH, kind="none")), data)
    assert torch.equal(_apply(replace(RECIPE, trigger=trigger), data).mask, flipped.mask)
    assert torch.equal(flipped.data.pixels, data.pixels)  # label flipping


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": 10}, "target is 10, but the data set's classes are 0 to 9"),
        ({"source": 10}, "source is 10, but the data set's classes are 0 to 9"),
        ({"source": 3}, "source and target are both 3; take two"),
    ],
)
def test_classes_that_cannot_be_are_refused(changes: dict[str, int], words: str) -> None:
    RECIPE.check(10)
    replace(RECIPE, source=None).check(10)
    with pytest.raises(InputError, match=words):
        replace(RECIPE, **changes).check(10)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "source", "words"),
    [
        (0.001, 7, "rate 0.001 of the class asks for 0 poisoned rows, but there are 40"),
        (1.1, 7, "rate 1.1 of the class asks for 44 poisoned rows, but there are 40"),
        (10, None, "asks for 400 poisoned rows, but there are 360"),
    ],
)
def test_a_rate_that_cannot_be_met_is_refused(
    rate: float, source: int | None, words: str, data: LabelledImages
) -> None:
    with pytest.raises(InputError, match=f"{words} to choose from; change rate or source"):
        _apply(replace(RECIPE, rate=rate, source=source), data)


def test_a_class_without_rows_can_neither_be_target_nor_source(data: LabelledImages) -> None:
    single = data.select(torch.tensor([7, *range(3, 400, 10)]))
    with pytest.raises(InputError, match="asks for 4 poisoned rows, but there are 1"):
        _apply(RECIPE, single)
    with pytest.raises(InputError, match="asks for 1 poisoned rows, but there are 1"):
        _apply(replace(RECIPE, rate=0.025), single)  # half of one row is none
    without = data.select(((data.labels != 3) & (data.labels != 7)).nonzero().flatten())
    with pytest.raises(InputError, match="asks for 0 poisoned rows, but there are 0"):
        _apply(RECIPE, without)
    with pytest.raises(InputError, match="asks for 32 poisoned rows, but there are 0"):
        _apply(replace(RECIPE, rate_of="set"), without)
