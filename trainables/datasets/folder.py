"""A user's own images: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* that is split.

Legend: N images, C channels, S side in pixels.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from trainables.datasets.dataset import (
    Dataset,
    LoadOptions,
    check_class_sizes,
    make_dataset,
    one_line,
)
from trainables.datasets.images import LabelledImages
from trainables.errors import InputError

RADIUS = 8 / 255
RADIUS_L2 = 0.5
MIN_SIZE = 4
MAX_SIZE = 1024
IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini"})
"""What Windows leaves in folders; names that begin with a dot are ignored too."""
WIDE_GREY_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of 16-bit grey images; its own conversion to 8 bits clips them to white."""
GREY_MODES = frozenset({"1", "L", "LA"}) | WIDE_GREY_MODES

# What Pillow's readers raise for foreign, truncated and corrupt files.
READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """The files of a folder, its official training rows first."""

    files: list[Path]
    labels: list[int]
    num_train: int | None
    classes: tuple[str, ...]


def load_folder(options: LoadOptions) -> Dataset:
    """Load the images of a folder, resized (bilinear, antialiased) to image_size x image_size.

    The images are grey where all files are, else RGB; alpha is dropped. Without an image_size all
    images must have one, square size. Raises InputError for whatever cannot be used.
    """
    assert options.path is not None
    path = options.path.expanduser()
    listing = _list_folder(path)
    labels = torch.tensor(listing.labels, dtype=torch.int64)
    # Here too, so that too small a class is reported before a large folder is decoded.
    check_class_sizes(labels, listing.num_train, listing.classes, str(path))
    sizes, modes = _read_headers(listing.files)
    side = _side(sizes, options.image_size, path)
    pixels = _decode(listing.files, side, "L" if modes <= GREY_MODES else "RGB")
    return make_dataset(
        name=f"folder:{options.path}",
        title=path.resolve().name,
        place=str(path),
        images=LabelledImages(pixels=torch.from_numpy(pixels), labels=labels, scale=255),
        num_train=listing.num_train,
        classes=listing.classes,
        radius=RADIUS,
        radius_l2=RADIUS_L2,
        augmentation="none",
        device=options.device,
    )


def check_image_size(image_size: int | None) -> None:
    """Raise InputError for a size that no model can take."""
    if image_size is not None and not MIN_SIZE <= image_size <= MAX_SIZE:
        raise InputError(
            f"--image-size must be within [{MIN_SIZE}, {MAX_SIZE}] pixels, but got {image_size}"
        )


def _list_folder(path: Path) -> _Listing:
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise InputError(f"folder:{path} {what}; name the folder that holds a folder per class")
    parts = _subfolders(path)
    if not _has_official_parts(parts):
        classes = _list_classes(path)
        files, labels = _in_order(classes)
        return _Listing(files=files, labels=labels, num_train=None, classes=tuple(classes))
    _check_official_parts(path, parts)
    train, test = _list_classes(path / "train"), _list_classes(path / "test")
    if set(train) != set(test):
        raise InputError(
            f"{path}: the classes {sorted(set(train) ^ set(test))} are in only one of train/ and "
            "test/; both need the same class folders"
        )
    train_files, train_labels = _in_order(train)
    test_files, test_labels = _in_order(test)
    return _Listing(
        files=train_files + test_files,
        labels=train_labels + test_labels,
        num_train=len(train_files),
        classes=tuple(train),
    )


def _has_official_parts(parts: dict[str, Path]) -> bool:
    """Distinguish train/ and test/ from classes that happen to be called so (a railway train)."""
    found = [parts[name] for name in ("train", "test") if name in parts]
    return bool(found) and (len(found) == len(parts) or any(_folders_in(part) for part in found))


def _check_official_parts(path: Path, parts: dict[str, Path]) -> None:
    for name in ("train", "test"):
        if name not in parts:
            raise InputError(
                f"{path} lacks {name}/; provide both train/ and test/, or one folder per class "
                "directly, which is then split"
            )
    others = sorted(set(parts) - {"train", "test"})
    if others:
        raise InputError(
            f"{path} holds {others[0]}/ next to train/ and test/; move it away or into one of them"
        )


def _list_classes(path: Path) -> dict[str, list[Path]]:
    """List the images of each class folder, classes and files sorted by name."""
    classes = {name: _list_images(folder) for name, folder in _subfolders(path).items()}
    if not classes:
        raise InputError(f"{path} is empty; it needs one folder of images per class")
    if len(classes) == 1:
        raise InputError(
            f"{path} holds only one class, {next(iter(classes))!r}; provide at least two"
        )
    return classes


def _subfolders(path: Path) -> dict[str, Path]:
    for entry in _visible(path):
        if not entry.is_dir():
            raise InputError(
                f"{entry} lies directly in {path}; put every image into the folder of its class"
            )
    return {entry.name: entry for entry in _visible(path)}


def _list_images(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise InputError(f"{folder}: the class has no images; add some or remove the folder")
    folders = _folders_in(folder)
    if folders:
        raise InputError(
            f"{folders[0]} is a folder inside a class; put its images into {folder} itself"
        )
    return files


def _folders_in(path: Path) -> list[Path]:
    return [entry for entry in _visible(path) if entry.is_dir()]


def _visible(path: Path) -> list[Path]:
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend its rights") from error
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and entry.name.lower() not in IGNORED_FILES
    ]


def _in_order(classes: dict[str, list[Path]]) -> tuple[list[Path], list[int]]:
    files = [file for group in classes.values() for file in group]
    labels = [label for label, group in enumerate(classes.values()) for _ in group]
    return files, labels


def _read_headers(files: list[Path]) -> tuple[set[tuple[int, int]], set[str]]:
    """Collect the sizes and Pillow modes, reading no pixels."""
    sizes, modes = set(), set()
    for file in files:
        with _opened(file) as image:
            sizes.add(image.size)
            modes.add(image.mode)
    return sizes, modes


def _side(sizes: set[tuple[int, int]], image_size: int | None, path: Path) -> int:
    if image_size is not None:
        return image_size
    width, height = max(sizes)
    if len(sizes) > 1:
        found = f"images of {len(sizes)} sizes, such as {width}x{height}"
    elif width != height or not MIN_SIZE <= width <= MAX_SIZE:
        found = f"images of {width}x{height}"
    else:
        return width
    raise InputError(
        f"{path} holds {found}; set --image-size N to resize all of them to NxN "
        f"({MIN_SIZE} to {MAX_SIZE})"
    )


def _decode(files: list[Path], side: int, mode: str) -> NDArray[np.uint8]:
    """Decode one file after the other into (N, C, S, S): no second copy of the data ever exists."""
    channels = len(mode)
    pixels = np.empty((len(files), channels, side, side), dtype=np.uint8)
    for row, file in enumerate(files):
        with _opened(file) as image:
            converted = _convert(image, mode, file)
            if converted.size != (side, side):
                converted = converted.resize((side, side), Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(converted).reshape(side, side, channels).transpose(2, 0, 1)
    return pixels


def _convert(image: Image.Image, mode: str, file: Path) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{file} holds floating-point pixels; save it as an 8-bit image")
    if image.mode in WIDE_GREY_MODES:
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((wide // 257).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns where a palette loses its alpha in one step
    return image.convert(mode)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image; a file that is none, or breaks off while it is decoded, is an InputError."""
    try:
        with Image.open(file) as image:
            yield image
    except READ_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} is not an image, or a truncated or corrupt one ({one_line(error)}); "
            "replace or remove it"
        ) from error
