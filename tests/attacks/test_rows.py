import torch

from trainables.attacks.rows import keep, per_row, places


def test_places_are_where_the_mask_holds_in_order() -> None:
    mask = torch.tensor([False, True, True, False, True])
    assert places(mask).tolist() == [1, 2, 4]
    assert places(~mask).tolist() == [0, 3]
    assert places(torch.zeros(3, dtype=torch.bool)).shape == (0,)


def test_values_of_rows_multiply_images() -> None:
    images = torch.ones(3, 2, 4, 5)
    scaled = per_row(torch.tensor([0.0, 1.0, 2.0]), images) * images
    assert scaled.shape == images.shape
    assert scaled.flatten(1).mean(1).tolist() == [0.0, 1.0, 2.0]


def test_what_is_found_is_kept_where_the_mask_holds_and_nowhere_else() -> None:
    before = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    kept, found = before.clone(), torch.full((3, 1, 2, 2), 7.0)
    keep(kept, torch.tensor([4, 0, 3]), found, torch.tensor([True, False, True]))
    assert kept.flatten(1).eq(7).all(1).tolist() == [False, False, False, True, True, False]
    assert torch.equal(kept[[0, 1, 2, 5]], before[[0, 1, 2, 5]])


def test_what_is_not_kept_may_be_nan() -> None:
    kept = torch.zeros(2)
    keep(kept, torch.arange(2), torch.tensor([torch.nan, 1.0]), torch.tensor([False, True]))
    assert kept.tolist() == [0.0, 1.0]
