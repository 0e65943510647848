"""The five pools of a data set: fixed, stratified, disjoint, the same on every device.

Legend: N images, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.datasets.dataset import Dataset
from trainables.datasets.images import LabelledImages
from trainables.errors import InputError

Protocol = Literal["search", "published", "deployment", "given"]

POOL_SEED = 0
"""Fixed: every trial of every sweep sees the same pools."""
POOL_PERCENT: Mapping[str, int] = {
    "train": 50,
    "calibration": 10,
    "validation": 15,
    "auxiliary": 10,
    "test": 15,
}
POOL_NAMES = tuple(POOL_PERCENT)
POOL_CAP = 5_000
"""Most rows that calibration, validation and auxiliary each take from an official training set."""


_FROM_VALIDATION: tuple[str, ...] = ("calibration", "validation", "auxiliary")
"""Pools that a validation set is split into where the training set was trained on before."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pools:
    """Disjoint parts of a data set; 'published' has a train and a test pool only."""

    train: LabelledImages
    train_index: Tensor
    """(len(train),) int64 on the CPU: the data set's rows that train holds."""
    calibration: LabelledImages | None
    """Everything that is fitted, or stops a training."""
    validation: LabelledImages | None
    """What the search measures on; the non-members."""
    auxiliary: LabelledImages | None
    """Evaluators, priors, extra shadow data."""
    test: LabelledImages
    """Audit only."""


def split_pools(
    dataset: Dataset,
    protocol: Protocol = "search",
    *,
    train_images: int | None = None,
    measured_images: int | None = None,
) -> Pools:
    """Split a data set into its pools.

    'search': half of the rows train, the rest selects and measures; 'published' reproduces papers:
    the whole official training set trains (without one: all except the test pool), nothing selects;
    'deployment' trains what is shipped: on train, validation and auxiliary together, with
    calibration and test as they are in 'search'. An official validation or test set is the pool of
    that name; the other pools are taken from the training rows.
    'given' is for weights that have seen the whole official training set: the other pools are taken
    from the official validation and test sets, so that nothing is fitted, chosen or measured on
    what the weights saw.
    `train_images` and `measured_images` keep a stratified subset of train, and of validation and
    test; a number larger than the pool keeps all of it. Raises InputError for a number below one.
    """
    labels = dataset.images.labels.cpu()
    rows = _given_rows(labels, dataset) if protocol == "given" else _search_rows(labels, dataset)
    if protocol == "published":
        trained = torch.ones(len(labels), dtype=torch.bool)
        trained[rows["test"]] = False
        if dataset.num_validation:
            trained[rows["validation"]] = False
        rows = {"train": trained.nonzero().flatten(), "test": rows["test"]}
    elif protocol == "deployment":
        joined = torch.cat([rows.pop(name) for name in ("train", "validation", "auxiliary")])
        rows["train"] = joined.sort().values
    limits = {"train": train_images, "validation": measured_images, "test": measured_images}
    kept = {name: _keep(labels, index, limits.get(name)) for name, index in rows.items()}
    pools = {name: dataset.images.select(index) for name, index in kept.items()}
    return Pools(
        train=pools["train"],
        train_index=kept["train"],
        calibration=pools.get("calibration"),
        validation=pools.get("validation"),
        auxiliary=pools.get("auxiliary"),
        test=pools["test"],
    )


def stratified_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` rows so that every class is within one image of its share.

    Returns sorted int64 row indices on the CPU; all rows where count is larger than the set.
    Raises InputError for a count below one.
    """
    if count < 1:
        raise InputError(f"a subset needs at least one image, but {count} were asked for")
    by_class = _shuffled_by_class(labels.cpu(), seed)
    sizes = [len(rows) for rows in by_class]
    shares = _proportional(sizes, min(count, len(labels)), least=0)
    return _take(by_class, [0] * len(sizes), shares)


def _keep(labels: Tensor, rows: Tensor, limit: int | None) -> Tensor:
    return rows if limit is None else rows[stratified_subset(labels[rows], limit, POOL_SEED)]


def _search_rows(labels: Tensor, dataset: Dataset) -> dict[str, Tensor]:
    """Return the sorted rows of every pool."""
    official = _official_rows(dataset)
    taken = [name for name in POOL_NAMES if name != "train" and name not in official]
    whole = 100 - sum(POOL_PERCENT[name] for name in official)
    trained = len(labels) if dataset.num_train is None else dataset.num_train
    sizes = {name: _rounded(trained * POOL_PERCENT[name], whole) for name in taken}
    if official:
        # Every pool holds every class, even of a set with more classes than the cap.
        cap = max(POOL_CAP, dataset.num_classes)
        sizes = {name: size if name == "test" else min(cap, size) for name, size in sizes.items()}
    return {**_partition(labels[:trained], sizes), **official}


def _given_rows(labels: Tensor, dataset: Dataset) -> dict[str, Tensor]:
    """Return the rows of every pool where all official training rows were trained on before.

    An official test set stays whole where there is a validation set for the other pools.
    """
    official = _official_rows(dataset)
    if len(official) == 2:
        source, shared = official.pop("validation"), _FROM_VALIDATION
    else:
        (source,) = official.values()
        official, shared = {}, (*_FROM_VALIDATION, "test")
    *taken, rest = shared
    _check_enough(labels[source], len(shared), dataset)
    whole = sum(POOL_PERCENT[name] for name in shared)
    cap = max(POOL_CAP, dataset.num_classes)
    sizes = {name: min(cap, _rounded(len(source) * POOL_PERCENT[name], whole)) for name in taken}
    parts = _partition(labels[source], sizes)
    parts[rest] = parts.pop("train")
    assert dataset.num_train is not None
    trained = {"train": torch.arange(dataset.num_train)}
    return {**trained, **{name: source[index] for name, index in parts.items()}, **official}


def _check_enough(labels: Tensor, pools: int, dataset: Dataset) -> None:
    counts = torch.bincount(labels, minlength=dataset.num_classes)
    if int(counts.min()) < pools:
        name = dataset.classes[int(counts.argmin())]
        raise InputError(
            f"{dataset.name}: class {name!r} has {int(counts.min())} images that the weights were "
            f"not trained on, but needs {pools}: they are split into {pools} pools; add some to "
            "val/ or test/"
        )


def _official_rows(dataset: Dataset) -> dict[str, Tensor]:
    """Return the rows of the official validation and test sets, where there are any."""
    if dataset.num_train is None:
        return {}
    test = dataset.num_train + dataset.num_validation
    rows = {
        "validation": torch.arange(dataset.num_train, test),
        "test": torch.arange(test, len(dataset.images)),
    }
    return {name: index for name, index in rows.items() if len(index)}


def _partition(labels: Tensor, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Return each named pool its size, and the train pool the rest."""
    by_class = _shuffled_by_class(labels, POOL_SEED)
    class_sizes = [len(rows) for rows in by_class]
    starts = [0] * len(class_sizes)
    pools = {}
    for name, size in sizes.items():
        counts = _proportional(class_sizes, max(size, len(class_sizes)), least=1)
        pools[name] = _take(by_class, starts, counts)
        starts = [start + count for start, count in zip(starts, counts, strict=True)]
    rest = [size - start for size, start in zip(class_sizes, starts, strict=True)]
    return {"train": _take(by_class, starts, rest), **pools}


def _shuffled_by_class(labels: Tensor, seed: int) -> list[Tensor]:
    """Return the rows of each class that occurs, in a random order that depends on the seed
    only.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels)
    return list(torch.split(order, counts[counts > 0].tolist()))


def _take(by_class: list[Tensor], starts: list[int], counts: list[int]) -> Tensor:
    parts = [
        rows[start : start + count]
        for rows, start, count in zip(by_class, starts, counts, strict=True)
    ]
    return torch.cat(parts).sort().values


def _proportional(sizes: list[int], total: int, *, least: int) -> list[int]:
    """Share `total` among classes by largest remainder, giving each at least `least`.

    Whole numbers only: a class's deficit is its exact share minus what it has, times sum(sizes).
    """
    whole = sum(sizes)
    counts = [max(least, total * size // whole) for size in sizes]

    def deficit(k: int) -> int:
        return total * sizes[k] - counts[k] * whole

    while sum(counts) < total:
        counts[max(range(len(sizes)), key=deficit)] += 1
    while sum(counts) > total:
        shrinkable = [k for k in range(len(sizes)) if counts[k] > least]
        counts[min(shrinkable, key=deficit)] -= 1
    return counts


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
