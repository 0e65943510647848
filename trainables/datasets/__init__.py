"""Data sets: one uint8 tensor on the device, five pools, bad input named in one line."""

from trainables.datasets.augment import augment
from trainables.datasets.dataset import RESIZES, Dataset, LoadOptions, Resize
from trainables.datasets.images import LabelledImages
from trainables.datasets.registry import (
    DATASETS,
    DatasetEntry,
    absolute_name,
    dataset_entry,
    find_data_dir,
    load_dataset,
)
from trainables.datasets.splits import (
    POOL_NAMES,
    POOL_SEED,
    Pools,
    split_pools,
    stratified_subset,
)

__all__ = [
    "DATASETS",
    "POOL_NAMES",
    "POOL_SEED",
    "RESIZES",
    "Dataset",
    "DatasetEntry",
    "LabelledImages",
    "LoadOptions",
    "Pools",
    "Resize",
    "absolute_name",
    "augment",
    "dataset_entry",
    "find_data_dir",
    "load_dataset",
    "split_pools",
    "stratified_subset",
]
