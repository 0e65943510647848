import itertools

import pytest
import torch
from torch import Tensor

from tests.datasets.making import fake_dataset, rows_of
from trainables.datasets import POOL_NAMES, LabelledImages, Pools, split_pools, stratified_subset
from trainables.datasets.splits import POOL_CAP
from trainables.errors import InputError


def _labels(sizes: list[int]) -> Tensor:
    labels = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]


def _present(pools: Pools) -> dict[str, LabelledImages]:
    return {name: getattr(pools, name) for name in POOL_NAMES if getattr(pools, name) is not None}


def _rows(pools: Pools) -> dict[str, list[int]]:
    return {name: rows_of(pool).tolist() for name, pool in _present(pools).items()}


@pytest.mark.parametrize(("sizes", "num_train"), [([400, 37, 10], None), ([500, 90, 60], 500)])
def test_search_pools_are_disjoint_and_cover_all_rows(
    sizes: list[int], num_train: int | None
) -> None:
    rows = _rows(split_pools(fake_dataset(_labels(sizes), num_train)))
    assert set(rows) == set(POOL_NAMES)
    assert sorted(itertools.chain(*rows.values())) == list(range(sum(sizes)))


def test_pools_without_an_official_test_set_have_their_shares() -> None:
    pools = split_pools(fake_dataset(_labels([300, 500, 200]), None))
    sizes = {name: len(pool) for name, pool in _present(pools).items()}
    assert sizes == {
        "train": 500,
        "calibration": 100,
        "validation": 150,
        "auxiliary": 100,
        "test": 150,
    }


def test_every_pool_has_every_class_within_one_image_of_its_share() -> None:
    sizes = [311, 502, 187, 43]
    pools = split_pools(fake_dataset(_labels(sizes), None))
    for name, pool in _present(pools).items():
        counts = torch.bincount(pool.labels, minlength=4)
        shares = torch.tensor(sizes) * len(pool) / sum(sizes)
        # Train takes what four roundings leave.
        assert (counts - shares).abs().max() <= (4 if name == "train" else 1)


@pytest.mark.parametrize("rare", [10, 11, 12, 13])
def test_the_smallest_class_is_in_every_pool(rare: int) -> None:
    pools = split_pools(fake_dataset(_labels([3000, rare, rare]), None))
    for pool in _present(pools).values():
        assert torch.bincount(pool.labels, minlength=3).min() >= 1


def test_large_official_training_sets_are_capped_and_the_rest_trains() -> None:
    labels = torch.arange(70_000) % 10
    pools = split_pools(fake_dataset(labels, 60_000))
    sizes = {name: len(pool) for name, pool in _present(pools).items()}
    assert sizes.pop("train") == 45_000
    assert sizes.pop("test") == 10_000
    assert set(sizes.values()) == {POOL_CAP}
    assert rows_of(pools.test).tolist() == list(range(60_000, 70_000))


def test_a_small_official_training_set_is_split_50_10_15_10() -> None:
    pools = split_pools(fake_dataset(torch.arange(1000) % 2, 850))
    sizes = [len(pool) for pool in _present(pools).values()]
    assert sizes == [500, 100, 150, 100, 150]


def test_train_index_names_the_rows_of_the_train_pool() -> None:
    pools = split_pools(fake_dataset(_labels([90, 80]), None), train_images=31)
    assert pools.train_index.dtype == torch.int64
    assert torch.equal(pools.train_index, rows_of(pools.train))


def test_the_same_data_gives_the_same_pools_and_leaves_the_global_generator_alone() -> None:
    dataset = fake_dataset(_labels([90, 80]), None)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _rows(split_pools(dataset))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert _rows(split_pools(dataset)) == first


def test_published_trains_on_the_whole_official_training_set() -> None:
    pools = split_pools(fake_dataset(_labels([90, 80]), 120), "published")
    assert pools.calibration is pools.validation is pools.auxiliary is None
    assert rows_of(pools.train).tolist() == list(range(120))
    assert rows_of(pools.test).tolist() == list(range(120, 170))


def test_published_without_an_official_test_set_has_the_test_pool_of_the_search() -> None:
    dataset = fake_dataset(_labels([90, 80]), None)
    published, search = _rows(split_pools(dataset, "published")), _rows(split_pools(dataset))
    assert published["test"] == search["test"]
    assert sorted(published["train"] + published["test"]) == list(range(170))


def test_train_and_measured_images_keep_stratified_subsets_of_the_same_pools() -> None:
    dataset = fake_dataset(_labels([600, 300, 100]), None)
    whole = _rows(split_pools(dataset))
    pools = split_pools(dataset, train_images=100, measured_images=40)
    part = _rows(pools)
    sizes = {name: len(rows) for name, rows in part.items()}
    assert sizes == {
        "train": 100,
        "calibration": 100,
        "validation": 40,
        "auxiliary": 100,
        "test": 40,
    }
    assert all(set(part[name]) <= set(whole[name]) for name in POOL_NAMES)
    assert torch.bincount(pools.train.labels).tolist() == [60, 30, 10]


def test_more_images_than_the_pool_holds_take_all() -> None:
    dataset = fake_dataset(_labels([90, 80]), 120)
    pools = split_pools(dataset, "published", train_images=10**6, measured_images=10**6)
    assert _rows(pools) == _rows(split_pools(dataset, "published"))


@pytest.mark.parametrize("count", [1, 7, 64, 512, 999])
def test_a_stratified_subset_is_sorted_and_within_one_image_of_its_shares(count: int) -> None:
    labels = _labels([5, 500, 300, 195])
    rows = stratified_subset(labels, count, seed=4)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == count
    shares = torch.bincount(labels) * count / 1000
    assert (torch.bincount(labels[rows], minlength=4) - shares).abs().max() < 1


@pytest.mark.parametrize(("sizes", "num_train"), [([400, 37, 10], None), ([500, 90, 60], 500)])
def test_deployment_trains_on_all_but_calibration_and_test(
    sizes: list[int], num_train: int | None
) -> None:
    dataset = fake_dataset(_labels(sizes), num_train)
    search, deployed = _rows(split_pools(dataset)), _rows(split_pools(dataset, "deployment"))
    assert set(deployed) == {"train", "calibration", "test"}
    assert all(deployed[name] == search[name] for name in ("calibration", "test"))
    joined = [*search["train"], *search["validation"], *search["auxiliary"]]
    assert deployed["train"] == sorted(joined)


def test_a_stratified_subset_depends_on_its_seed() -> None:
    labels = _labels([500, 300])
    assert torch.equal(stratified_subset(labels, 50, 1), stratified_subset(labels, 50, 1))
    assert not torch.equal(stratified_subset(labels, 50, 1), stratified_subset(labels, 50, 2))


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        stratified_subset(torch.tensor([0, 1]), 0, seed=0)
