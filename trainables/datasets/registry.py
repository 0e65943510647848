"""Every data set by name."""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.datasets import cifar10, digits, folder, mnist
from trainables.datasets.dataset import Dataset, LoadOptions, Resize
from trainables.datasets.torchvision_files import DATA_DIR_VARIABLE
from trainables.declared import NOTHING
from trainables.errors import InputError
from trainables.storage.folders import absolute_place, is_uri, redacted, staged_folder

FOLDER_PREFIX = "folder:"
CACHED_DATASETS = 4
"""Data sets kept in memory, the least recently used goes first: each may take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """What is known of a data set before it is loaded."""

    name: str
    meaning: str
    source: str
    radius: float
    """Standard Linf radius, in pixel values of [0, 1]."""
    radius_l2: float
    """Standard L2 radius, in pixel values of [0, 1]."""
    num_classes: int | None
    """None: it is known only when the images are."""
    default_model: str
    training: Mapping[str, Any]
    """Training parameters that differ from the trainer's own defaults."""
    load: Callable[[LoadOptions], Dataset]
    under: str = ""
    """Where in the data folder its files lie."""


DATASETS: Mapping[str, DatasetEntry] = {
    "digits": DatasetEntry(
        name="digits",
        meaning="1,797 hand-written digits, 8x8 grey, embedded: needs no files",
        source="scikit-learn load_digits; E. Alpaydin, C. Kaynak, UCI, 1998",
        radius=digits.RADIUS,
        radius_l2=digits.RADIUS_L2,
        num_classes=10,
        default_model="small_cnn",
        training={},
        load=digits.load_digits,
    ),
    "mnist": DatasetEntry(
        name="mnist",
        meaning="60,000 + 10,000 hand-written digits, 28x28 grey",
        source="torchvision; Y. LeCun, C. Cortes, C. Burges",
        radius=mnist.RADIUS,
        radius_l2=mnist.RADIUS_L2,
        num_classes=10,
        default_model="pixeldp_cnn",
        training={"epochs": 6, "batch_size": 128, "learning_rate": 0.1},
        load=mnist.load_mnist,
        under=mnist.FOLDER,
    ),
    "cifar10": DatasetEntry(
        name="cifar10",
        meaning="50,000 + 10,000 photographs of ten classes, 32x32 RGB",
        source="torchvision; A. Krizhevsky, 2009",
        radius=cifar10.RADIUS,
        radius_l2=cifar10.RADIUS_L2,
        num_classes=10,
        default_model="resnet18",
        training={"epochs": 30, "batch_size": 128, "learning_rate": 0.1},
        load=cifar10.load_cifar10,
        under=cifar10.FOLDER,
    ),
    "folder": DatasetEntry(
        name="folder",
        meaning="your own images, folder:PATH, a folder per class (with or without train/, test/)",
        source="the user",
        radius=folder.RADIUS,
        radius_l2=folder.RADIUS_L2,
        num_classes=None,
        default_model="cnn_bn",
        training={},
        load=folder.load_folder,
    ),
}


def dataset_entry(name: str) -> DatasetEntry:
    """Look a data set up by name, where folder:PATH is the folder's entry.

    Raises InputError, naming the known ones, for any other name.
    """
    if name.removeprefix(FOLDER_PREFIX).strip() and name.startswith(FOLDER_PREFIX):
        return DATASETS["folder"]
    if name in ("folder", FOLDER_PREFIX):
        raise InputError("folder needs a path; write folder:PATH")
    if name not in DATASETS:
        known = ", ".join(key for key in DATASETS if key != "folder")
        raise InputError(f"unknown data set {name!r}; known: {known}, folder:PATH")
    return DATASETS[name]


def load_dataset(
    name: str,
    *,
    data_dir: Path | str | None,
    image_size: int | None,
    device: torch.device,
    resize: Resize = "crop",
    skip_bad_images: bool = False,
    trained_on: str = "",
    download: bool = False,
) -> Dataset:
    """Load a data set onto a device; the same arguments return the same object.

    `trained_on` is the folder, or the list of files, that given weights were trained on: a folder's
    own images alone are told apart by it; NOTHING and "" say nothing.

    `data_dir` falls back on $DEFENSE_SWEEP_DATA; where it is a URI, the data set's files are
    brought to this node first. Raises InputError for whatever the user must mend.
    """
    entry = dataset_entry(name)
    folder.check_image_size(image_size)
    named = Path(trained_on) if trained_on not in ("", NOTHING) else None
    if named is not None and entry.name != "folder":
        raise InputError(
            f"--trained-on {trained_on}: it is for folder:PATH, and {name} is none: its own "
            "training images are what counts"
        )
    local_dir = _local_data_dir(entry, find_data_dir(data_dir), download)
    options = LoadOptions(
        path=Path(name.removeprefix(FOLDER_PREFIX)) if entry.name == "folder" else None,
        data_dir=local_dir,
        image_size=image_size,
        resize=resize,
        skip_bad_images=skip_bad_images,
        trained_on=named,
        download=download,
        device=device,
    )
    return _load(entry.name, options)


def find_data_dir(given: Path | str | None) -> str | None:
    """Return the data folder, absolute or a URI: that given, else $DEFENSE_SWEEP_DATA, else
    None.
    """
    named = os.environ.get(DATA_DIR_VARIABLE) if given is None else str(given)
    return absolute_place(named) if named else None


def _local_data_dir(entry: DatasetEntry, place: str | None, download: bool) -> Path | None:
    if place is None or not is_uri(place):
        return None if place is None else Path(place)
    if not entry.under:
        return None  # needs no data folder
    if download:
        raise InputError(
            f"--download: {entry.name} cannot be fetched into {redacted(place)}; fetch it into a "
            "folder and copy that there"
        )
    return staged_folder(place, entry.under)


def absolute_name(name: str) -> str:
    """Make the path of folder:PATH absolute, so that it means the same to every worker."""
    path = name.removeprefix(FOLDER_PREFIX)
    if not name.startswith(FOLDER_PREFIX) or not path.strip():
        return name
    return f"{FOLDER_PREFIX}{Path(path).expanduser().absolute()}"


@functools.lru_cache(maxsize=CACHED_DATASETS)
def _load(entry_name: str, options: LoadOptions) -> Dataset:
    return DATASETS[entry_name].load(options)
