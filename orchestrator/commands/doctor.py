"""`doctor`: what this machine has for a sweep, and what is amiss."""

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.run.paths import check_writable
from orchestrator.sweep.resources import this_machine
from trainables.datasets import DATASETS, load_dataset
from trainables.datasets.torchvision_files import DATA_DIR_VARIABLE
from trainables.device import CPU, accelerator_names, why_unusable
from trainables.errors import InputError, StorageError
from trainables.metrics.perceptual import WEIGHTS_NAME, find_weights
from trainables.storage.folders import cache_folder, is_uri, redacted

_PACKAGES = ("ray", "torch", "torchvision", "optuna", "scikit-learn", "pandas", "lpips")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's."""

    what: str
    good: bool
    found: str
    needed: bool = True
    """Whether a sweep on the embedded data cannot do without it."""


def examine(runs: str, data_dir: str | None) -> Iterator[Check]:
    """Look at versions, devices, Ray, data sets, LPIPS weights and storage."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    yield Check("versions", True, ", ".join(versions))  # the one that needs no torch comes first

    machine = this_machine()
    yield Check("CPUs", machine.cpus >= 1, f"{machine.cpus:g}")
    yield _gpus()
    yield _ray()
    for name in DATASETS:
        if name != "folder":
            yield _dataset(name, data_dir)
    weights = find_weights(None)
    yield Check(
        "LPIPS weights",
        weights is not None,
        str(weights) if weights else f"{WEIGHTS_NAME} is not here: lpips metrics will be missing",
        needed=False,
    )
    yield storage(runs)


def _gpus() -> Check:

    reason = why_unusable()
    if reason is not None:
        return Check("GPUs", False, f"{reason}; until that is mended, trials run on CPUs")
    names = accelerator_names()
    return Check("GPUs", bool(names), ", ".join(names) or "none: trials run on CPUs", needed=False)


def _ray() -> Check:
    from orchestrator.sweep.sweep import ray_session

    try:
        with ray_session(None) as there:
            return Check("Ray", True, f"starts, {there.cpus:g} CPUs and {there.gpus:g} GPUs")
    except (RuntimeError, OSError, ConnectionError, TimeoutError) as error:
        return Check("Ray", False, f"does not start: {error}")


def _dataset(name: str, data_dir: str | None) -> Check:

    try:
        dataset = load_dataset(name, data_dir=data_dir, image_size=None, device=CPU)
    except (InputError, StorageError) as error:
        return Check(f"data set {name}", False, str(error), needed=False)
    return Check(f"data set {name}", True, f"{len(dataset.images):,} images", needed=False)


def storage(runs: str) -> Check:
    """See whether runs could be written there, and how much room is left."""

    try:
        check_writable(runs)
    except InputError as error:
        return Check("storage", False, str(error))
    where = redacted(os.environ.get(DATA_DIR_VARIABLE, "not set"))
    if is_uri(runs):
        found = f"{redacted(runs)} can be written to; this node's cache is {cache_folder()}"
        return Check("storage", True, f"{found}; ${DATA_DIR_VARIABLE} is {where}")
    path = Path(runs)
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free / 2**30
    return Check(
        "storage", free > 1, f"{free:.0f} GiB free under {runs}; ${DATA_DIR_VARIABLE} is {where}"
    )
