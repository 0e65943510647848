"""Pictures of any kind and size made the pixels that a bundle's model takes.

The functions are those that read a folder for training. N images, C channels, S side in pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.datasets.dataset import Resize
from trainables.datasets.image_files import (
    BadImageError,
    Decoded,
    decode,
    decode_image,
    to_square,
)
from trainables.datasets.images import LabelledImages

Picture: TypeAlias = Image.Image | Path | str | NDArray[Any] | Tensor
"""One image, or an array of some."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R 601, as Pillow's grey."""
_BYTES = 255
_ARRAYS = "(H, W), (H, W, C), (C, H, W), (N, H, W, C) or (N, C, H, W)"


def pixels_of(
    images: Picture | Sequence[Picture], shape: tuple[int, int, int], resize: Resize
) -> Tensor:
    """Return images as float32 (N, C, S, S) in [0, 1], of `shape` (C, S, S).

    Files, Pillow's images and bytes (0 to 255) are turned upright, composed on white, resized and
    rounded to bytes as a folder's images are; floats must lie in [0, 1] and are resized without
    rounding. Raises ValueError, in one line, for whatever is no image.
    """
    if shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise ValueError(
            f"this model takes images of {shape}, which no picture has; use probabilities(x)"
        )
    given = images if isinstance(images, list | tuple) else [images]
    if not given:
        raise ValueError("no image was given")
    found = []
    for place, picture in enumerate(given):
        try:
            found += _pixels(picture, shape, resize)
        except (BadImageError, ValueError) as error:
            name = str(picture) if isinstance(picture, str | Path) else f"image {place}"
            raise ValueError(f"{name}: {error}") from error
    if not found:
        raise ValueError("no image was given")
    return torch.stack(found)


def _pixels(picture: object, shape: tuple[int, int, int], resize: Resize) -> list[Tensor]:
    grey, side = shape[0] == 1, shape[1]
    if isinstance(picture, str | Path):
        path = Path(picture).expanduser()
        if not path.is_file():
            raise ValueError("there is no such file")
        return [_of_bytes(decode(path, side, grey=grey, resize=resize))]
    if isinstance(picture, Image.Image):
        return [_of_bytes(decode_image(picture, side, grey=grey, resize=resize))]
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().numpy()
    if not isinstance(picture, np.ndarray):
        raise ValueError(
            f"an image is a path, a Pillow image or an array, but got {type(picture).__name__}"
        )
    rows = _channels_last(picture, shape)
    if picture.dtype == np.uint8:
        return [
            _of_bytes(decode_image(_image(row), side, grey=grey, resize=resize)) for row in rows
        ]
    if picture.dtype.kind != "f":
        raise ValueError(
            f"pixels must be uint8 (0 to 255) or floats in [0, 1], but got {picture.dtype}"
        )
    return [_of_floats(row.astype(np.float32), grey, side, resize) for row in rows]


def _channels_last(array: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Return an array as (N, H, W, C)."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim not in (3, 4) or 0 in array.shape[-3:]:
        raise ValueError(f"an array is {_ARRAYS}, but got {array.shape}")
    last, first = array.shape[-1] in (1, 3, 4), array.shape[-3] in (1, 3)
    if first and (not last or array.shape[-3:] == shape):
        array = np.moveaxis(array, -3, -1)
    elif first or not last:
        raise ValueError(f"where are the channels? an array is {_ARRAYS}, but got {array.shape}")
    return array if array.ndim == 4 else array[None]


def _image(row: NDArray[Any]) -> Image.Image:
    bytes_ = np.ascontiguousarray(row)
    return Image.fromarray(bytes_[..., 0] if row.shape[-1] == 1 else bytes_)


def _of_bytes(decoded: Decoded) -> Tensor:
    levels = decoded.pixels
    if levels.dtype != np.uint8:
        # A folder is scaled by the depth of all its images, which one image does not tell.
        if decoded.declared_peak is None or decoded.found_peak is None:
            raise ValueError("grey levels of more than 8 bits without a depth; save it in 8 bits")
        peak = max(decoded.declared_peak, decoded.found_peak)
        levels = np.rint(levels.astype(np.float64) * _BYTES / peak).clip(0, _BYTES)
    planes = levels.astype(np.uint8).reshape(*levels.shape[:2], -1).transpose(2, 0, 1)
    one = LabelledImages(
        pixels=torch.from_numpy(planes.copy())[None],
        labels=torch.zeros(1, dtype=torch.int64),
        scale=_BYTES,
    )
    return one.images()[0]


def _of_floats(row: NDArray[np.float32], grey: bool, side: int, resize: Resize) -> Tensor:
    if row.shape[-1] == 4:
        raise ValueError("floats have 1 or 3 channels; give transparent images as bytes")
    if not (row.min() >= 0 and row.max() <= 1):
        raise ValueError("floats must lie in [0, 1]; divide bytes by 255, or give them as uint8")
    if grey and row.shape[-1] == 3:
        row = (row @ _LUMA)[..., None].clip(0, 1)
    planes = [
        np.asarray(to_square(Image.fromarray(np.ascontiguousarray(plane)), side, resize))
        for plane in np.moveaxis(row, -1, 0)
    ]
    found = torch.from_numpy(np.stack(planes).clip(0, 1))
    return found if grey else found.expand(3, -1, -1).clone()
