"""A user's own images: PATH/CLASS/*, or PATH/train/CLASS/* with test/, val/ or both.

Legend: N images, C channels, S side in pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.datasets.dataset import (
    Dataset,
    LoadOptions,
    Resize,
    check_class_sizes,
    counted,
    make_dataset,
)
from trainables.datasets.folder_listing import Listing, list_folder
from trainables.datasets.image_files import (
    GREY_MODES,
    BadImageError,
    Decoded,
    Header,
    decode,
    read_header,
)
from trainables.datasets.images import LabelledImages
from trainables.datasets.seen import with_seen_first
from trainables.errors import InputError

RADIUS = 8 / 255
RADIUS_L2 = 0.5
MIN_SIZE = 4
MAX_SIZE = 1024
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
"""Bits a pixel that cameras and scanners write into wider files."""
_NAMED = 10
"""Bad images that an error names."""


def load_folder(options: LoadOptions) -> Dataset:
    """Load the images of a folder as (N, C, S, S) bytes, S = image_size.

    Each image is turned upright as its EXIF orientation says, composed on white where it is
    transparent, and resized (bilinear, antialiased): the short side to S with the centre kept, or
    both sides with resize="squash". All are grey where all files are, else RGB. Grey levels of more
    than 8 bits are scaled by the depth that the file declares, else by the least usual depth that
    holds all of the folder's. Without an image_size all images must have one, square size. What is
    done, and what is passed over, stands in the data set's `notes`.

    Raises InputError for whatever cannot be used: for all bad images at once, unless
    skip_bad_images leaves them out.
    """
    assert options.path is not None
    path = options.path.expanduser()
    listing, seen = list_folder(path), list[str]()
    if options.trained_on is not None:
        listing, seen = with_seen_first(listing, path, options.trained_on)
    labels = torch.tensor(listing.labels, dtype=torch.int64)
    # Here too, so that too small a class is reported before a large folder is decoded.
    check_class_sizes(labels, listing.num_train, listing.num_validation, listing.classes, str(path))
    read = _read(listing, options, path)
    kept = torch.from_numpy(read.kept)
    pixels = read.pixels if read.kept.all() else read.pixels[read.kept]
    return make_dataset(
        name=f"folder:{options.path}",
        title=path.resolve().name,
        place=str(path),
        images=LabelledImages(pixels=torch.from_numpy(pixels), labels=labels[kept], scale=255),
        num_train=None if listing.num_train is None else int(kept[: listing.num_train].sum()),
        num_validation=_validation_rows(listing, kept),
        classes=listing.classes,
        radius=RADIUS,
        radius_l2=RADIUS_L2,
        augmentation="none",
        device=options.device,
        notes=(*seen, *listing.passed_over.words(), *read.notes),
    )


def check_image_size(image_size: int | None) -> None:
    """Raise InputError for a size that no model can take."""
    if image_size is not None and not MIN_SIZE <= image_size <= MAX_SIZE:
        raise InputError(
            f"--image-size must be within [{MIN_SIZE}, {MAX_SIZE}] pixels, but got {image_size}"
        )


@dataclass(slots=True)
class _Done:
    """What was done to a folder's images, counted."""

    turned: int = 0
    composed: int = 0
    unsquare: int = 0
    peaks: dict[int, int] = field(default_factory=dict)
    """Row -> largest value that a wide grey image declares."""
    found_peak: int | None = None
    """Largest value of the wide grey images that declare none."""

    def count(self, row: int, decoded: Decoded) -> None:
        self.turned += decoded.turned
        self.composed += decoded.composed
        self.unsquare += decoded.cropped
        if decoded.found_peak is None:
            return
        if decoded.declared_peak is not None:
            self.peaks[row] = max(decoded.declared_peak, decoded.found_peak)
        else:
            self.found_peak = max(self.found_peak or 0, decoded.found_peak)

    @property
    def depth(self) -> int:
        """Least usual number of bits that holds every undeclared value."""
        found = self.found_peak or 0
        return next((bits for bits in _DEPTHS if found < 2**bits), _DEPTHS[-1])

    def words(self, side: int, resize: Resize) -> list[str]:
        """Return a sentence for each thing that was done."""
        found = []
        if self.turned:
            found.append(
                f"turned {counted(self.turned, 'image')} upright, as their EXIF orientation says"
            )
        if self.found_peak is not None:
            found.append(
                f"read {self.depth}-bit grey levels (the largest is {self.found_peak}) as "
                f"[0, {2**self.depth - 1}]"
            )
        if self.peaks:
            tops = ", ".join(str(peak) for peak in sorted(set(self.peaks.values()))[:3])
            found.append(
                f"read {counted(len(self.peaks), 'image')} by the peak that they declare ({tops})"
            )
        if self.composed:
            found.append(f"composed {counted(self.composed, 'image')} with transparency on white")
        if self.unsquare:
            how = "squashed" if resize == "squash" else "kept the centre of"
            found.append(f"{how} {counted(self.unsquare, 'non-square image')} at {side}x{side}")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The images of a listing."""

    pixels: NDArray[np.uint8]
    """(N, C, S, S)."""
    kept: NDArray[np.bool_]
    """(N,) which of them could be read."""
    notes: tuple[str, ...]


def _read(listing: Listing, options: LoadOptions, path: Path) -> _Read:
    """Read headers, then pixels, one file after the other: no second copy of the data exists."""
    bad: dict[Path, str] = {}
    headers = _read_headers(listing.files, bad)
    if not headers:
        raise _bad_images(path, bad, len(listing.files))
    side = _side([header.size for header in headers.values()], options.image_size, path)
    grey = all(header.mode in GREY_MODES for header in headers.values())
    kept = np.array([file in headers for file in listing.files])
    pixels = np.empty((len(listing.files), 1 if grey else 3, side, side), dtype=np.uint8)
    wide: dict[int, NDArray[np.float32]] = {}
    done = _Done()
    for row, file in enumerate(listing.files):
        if file not in headers:
            continue
        try:
            decoded = decode(file, side, grey=grey, resize=options.resize)
        except BadImageError as error:
            bad[file], kept[row] = str(error), False
            continue
        done.count(row, decoded)
        planes = decoded.pixels.reshape(side, side, -1).transpose(2, 0, 1)
        if planes.dtype == np.uint8:
            pixels[row] = planes
        else:
            wide[row] = planes.astype(np.float32)
    _scale(wide, done, pixels)
    if bad and not options.skip_bad_images:
        raise _bad_images(path, bad, len(listing.files))
    skipped = [f"left out {_listed(bad, path)}"] if bad else []
    return _Read(pixels, kept, (*skipped, *done.words(side, options.resize)))


def _scale(wide: Mapping[int, NDArray[np.float32]], done: _Done, pixels: NDArray[np.uint8]) -> None:
    """Write grey levels of more than 8 bits as bytes: their full range becomes [0, 255]."""
    for row, levels in wide.items():
        peak = done.peaks.get(row, 2**done.depth - 1)
        pixels[row] = np.rint(levels.astype(np.float64) * 255 / peak).clip(0, 255)


def _read_headers(files: Iterable[Path], bad: dict[Path, str]) -> dict[Path, Header]:
    """Collect sizes and modes, reading no pixels; put what is not an image into `bad`."""
    headers = {}
    for file in files:
        try:
            headers[file] = read_header(file)
        except BadImageError as error:
            bad[file] = str(error)
    return headers


def _bad_images(path: Path, bad: Mapping[Path, str], number: int) -> InputError:
    return InputError(
        f"{path}: of {counted(number, 'image')}, {_listed(bad, path)}; replace or remove them, or "
        "leave them out with --skip-bad-images"
    )


def _listed(bad: Mapping[Path, str], path: Path) -> str:
    named = {f: f.relative_to(path) if f.is_relative_to(path) else f for f in bad}
    rows = [f"{named[file]} ({why})" for file, why in sorted(bad.items())]
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"{len(rows)} bad: {', '.join(rows[:_NAMED])}{more}"


def _validation_rows(listing: Listing, kept: torch.Tensor) -> int:
    start = listing.num_train or 0
    return int(kept[start : start + listing.num_validation].sum())


def _side(sizes: Sequence[tuple[int, int]], image_size: int | None, path: Path) -> int:
    if image_size is not None:
        return image_size
    width, height = max(sizes)
    if len(set(sizes)) > 1:
        found = f"images of {len(set(sizes))} sizes, such as {width}x{height}"
    elif width != height or not MIN_SIZE <= width <= MAX_SIZE:
        found = f"images of {width}x{height}"
    else:
        return width
    raise InputError(
        f"{path} holds {found}; set --image-size N to resize all of them to NxN "
        f"({MIN_SIZE} to {MAX_SIZE})"
    )
