"""Folders of images for the tests, and how they load."""

from pathlib import Path
from typing import Any

import pytest

from tests.datasets.making import CPU, write_images
from trainables.datasets import Dataset, load_dataset
from trainables.errors import InputError


def load(path: Path, image_size: int | None = None, **options: Any) -> Dataset:
    """Load a folder of images."""
    return load_dataset(
        f"folder:{path}", data_dir=None, image_size=image_size, device=CPU, **options
    )


def refusal(path: Path, culprit: Path | None = None, image_size: int | None = None) -> str:
    """Return the one line with which a folder is refused."""
    with pytest.raises(InputError) as caught:
        load(path, image_size)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert culprit is None or str(culprit.relative_to(path)) in str(caught.value)
    return str(caught.value)


def class_folders(path: Path, count: int = 10, *, mode: str = "RGB") -> Path:
    """Write two classes of random images."""
    for name in ("cat", "ant"):
        write_images(path / name, count, mode=mode)
    return path


def official_folders(path: Path) -> Path:
    """Write two classes in train/ and in test/."""
    class_folders(path / "train", 8)
    class_folders(path / "test", 1)
    return path
