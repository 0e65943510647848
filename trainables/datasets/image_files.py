"""One image file, read as people see it: upright, with its full depth, on white, square.

Legend: S side in pixels.
"""

import functools
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainables.datasets.dataset import Resize, one_line

WIDE_GREY_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of grey images of more than 8 bits; its own conversion clips them to white."""
GREY_MODES = frozenset({"1", "L", "LA", "La"}) | WIDE_GREY_MODES
_NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
"""Formats that Pillow knows by name, but does not decode by itself."""
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_MAX_SAMPLE_VALUE = 281
"""TIFF tag: the largest value that a sample of the image can take."""
_BITS_PER_SAMPLE = 258
_ORIENTATION = 0x0112
"""EXIF tag: 1 upright; 2 to 8 turned or mirrored."""

# What Pillow's readers raise for foreign, truncated and corrupt files.
_READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class BadImageError(Exception):
    """A file that is no image, or one that cannot be used as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its image before a pixel is decoded."""

    size: tuple[int, int]
    """Width and height in pixels, as stored."""
    mode: str
    """Pillow's name of the pixels' format."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The pixels of one image at its final size."""

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    """(S, S) or (S, S, 3); float32 and not scaled yet where the file has more than 8 bits."""
    declared_peak: int | None = None
    """Largest value that a wide image declares to be possible."""
    found_peak: int | None = None
    """Largest value of a wide image before it was resized; None: the file has 8 bits."""
    turned: bool = False
    """Whether the file says that its image is stored lying or mirrored."""
    composed: bool = False
    """Whether transparent pixels were laid on white."""
    cropped: bool = False
    """Whether the ends of the long side were cut off, or were squashed."""


def is_image(file: Path) -> bool:
    """Return whether a file is meant to be an image, by its ending, or else by its content."""
    ending = file.suffix.lower()
    if ending in _endings():
        return True
    # PDF, HDF5 and others that Pillow registers are not pictures.
    return ending not in Image.registered_extensions() and _identified(file)


def read_header(file: Path) -> Header:
    """Read size and mode; BadImageError where the file is not an image."""
    with _opened(file) as image:
        return Header(image.size, image.mode)


def decode(file: Path, side: int, *, grey: bool, resize: Resize) -> Decoded:
    """Decode an image, upright and S x S, to one channel or to RGB.

    Transparent pixels are composed on white. Raises BadImageError for a file that is truncated,
    corrupt or of floating-point or negative pixels.
    """
    with _opened(file) as stored:
        return decode_image(stored, side, grey=grey, resize=resize)


def decode_image(stored: Image.Image, side: int, *, grey: bool, resize: Resize) -> Decoded:
    """Do what `decode` does, to an image that Pillow has opened."""
    with _reading():
        if stored.mode == "F":
            raise BadImageError("floating-point pixels; save it as an 8-bit or 16-bit image")
        declared = _declared_peak(stored)
        turned = stored.getexif().get(_ORIENTATION, 1) in range(2, 9)
        image = ImageOps.exif_transpose(stored) if turned else stored
        cropped = image.width != image.height
        if image.mode in WIDE_GREY_MODES:
            wide = _wide(image)
            pixels = np.asarray(to_square(Image.fromarray(wide), side, resize))
            return Decoded(
                pixels if grey else np.repeat(pixels[..., None], 3, axis=2),
                declared_peak=declared,
                found_peak=int(wide.max()),
                turned=turned,
                cropped=cropped,
            )
        flat, composed = _on_white(image)
        converted = to_square(flat.convert("L" if grey else "RGB"), side, resize)
        return Decoded(np.asarray(converted), turned=turned, composed=composed, cropped=cropped)


def to_square(image: Image.Image, side: int, resize: Resize) -> Image.Image:
    """Resize (bilinear, antialiased) to S x S; the short side and the offset are rounded as
    torchvision's Resize and CenterCrop do."""
    width, height = image.size
    if (width, height) == (side, side):
        return image
    if resize == "squash" or width == height:
        return image.resize((side, side), Image.Resampling.BILINEAR)
    short = min(width, height)
    across, down = (side * width // short, side * height // short)
    left, top = round((across - side) / 2), round((down - side) / 2)
    whole = image.resize((across, down), Image.Resampling.BILINEAR)
    return whole.crop((left, top, left + side, top + side))


def _wide(image: Image.Image) -> NDArray[np.float32]:
    """Return grey levels of more than 8 bits; float32 holds 24 bits exactly."""
    levels = np.asarray(image)
    if levels.min() < 0:
        raise BadImageError("negative pixels; save it as an 8-bit or 16-bit image")
    return levels.astype(np.float32)


def _on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image composed on white, and whether anything of it is transparent."""
    mode = _PREMULTIPLIED.get(image.mode, image.mode)
    if "transparency" not in image.info and mode not in ("LA", "PA", "RGBA"):
        return image, False
    layers = (image if mode == image.mode else image.convert(mode)).convert("RGBA")
    if layers.getchannel("A").getextrema() == (255, 255):
        return layers.convert("RGB"), False
    white = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(white, layers).convert("RGB"), True


def _declared_peak(image: Image.Image) -> int | None:
    """Return the largest value that a TIFF declares: its tag, or bits that fill no whole bytes."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    peak = tags.get(_MAX_SAMPLE_VALUE)
    if peak is not None:
        return int(peak[0] if isinstance(peak, tuple) else peak)
    bits = tags.get(_BITS_PER_SAMPLE, (8,))[0]
    return None if bits in (1, 8, 16, 32) else 2**bits - 1


@functools.cache
def _endings() -> frozenset[str]:
    Image.init()
    return frozenset(
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NO_PICTURES
    )


def _identified(file: Path) -> bool:
    try:
        with _opened(file) as image:
            return image.format not in _NO_PICTURES
    except BadImageError:
        return False


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open an image; a file that is none, or breaks off while it is decoded, is a
    BadImageError."""
    with _reading(), Image.open(file) as image:
        yield image


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _READ_ERRORS as error:
        raise BadImageError(f"not an image, or truncated or corrupt: {one_line(error)}") from error
