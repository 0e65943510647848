"""Images before and after an attack, with what an undefended and a defended model say of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from results.records.record import Record
from results.records.run import Run

_RIGHT, _WRONG = "#00664B", "#B22222"
_REJECTED = -1
_WIDTH, _ROW_HEIGHT = 7.0, 1.5
_PITCH = 1.13
"""From one image to the next, in widths of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImage:
    """One image with the answer of a model."""

    pixels: NDArray[np.uint8]
    """(H, W, C)"""
    label: int
    answer: int
    """The predicted class, or -1 where the model rejects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesInfo:
    """Rows of images, each with a title."""

    rows: tuple[tuple[str, tuple[ShownImage, ...]], ...]

    def alt(self) -> str:
        """Describe the figure in words."""
        titles = "; ".join(title for title, _ in self.rows)
        return f"The same images in rows: {titles}. Below each image what the model says of it."


def attacked_images(run: Run, shown: Sequence[Record]) -> ImagesInfo | None:
    """Choose the rows: unattacked, then attacked for each of the shown trials.

    Every trial is attacked again, so that its images are its own. None where no record holds any.
    """
    rows: list[tuple[str, tuple[ShownImage, ...]]] = []
    for record in shown:
        found = _pictures(run, record)
        if not found:
            continue
        if not rows:
            rows.append((f"unattacked: {record.label} says", _images(found, "clean", "before")))
        title = f"under {found['attack']}: {record.label} says"
        rows.append((title, _images(found, "attacked", "after")))
    return ImagesInfo(rows=tuple(rows)) if rows else None


def draw_images(info: ImagesInfo, row_height: float = _ROW_HEIGHT) -> Figure:
    """Draw the rows below each other, the answers in green where they are right.

    `row_height` is in inches, title and answers included.
    """
    columns = max(len(images) for _, images in info.rows)
    figure = Figure(figsize=(_WIDTH, row_height * len(info.rows)))
    panels: list[Axes] = list(figure.subplots(len(info.rows), 1, squeeze=False).flat)
    for axes, (title, images) in zip(panels, info.rows, strict=True):
        axes.set_title(title if len(title) < 90 else title[:88] + "..", fontsize=8.5)
        for place, image in enumerate(images):
            _draw(axes, image, place * _PITCH)
        axes.set(xlim=(0, columns * _PITCH), ylim=(-0.3, 1), aspect="equal")
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, image: ShownImage, left: float) -> None:
    """Draw an image as a unit square: axes of its own would take half as long again."""
    grey = image.pixels.shape[2] == 1
    axes.imshow(
        image.pixels[:, :, 0] if grey else image.pixels, extent=(left, left + 1, 0, 1),
        cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="nearest",
    )  # fmt: skip
    said = "rejected" if image.answer == _REJECTED else str(image.answer)
    wrong = image.answer not in (image.label, _REJECTED)
    axes.text(
        left + 0.5, -0.06, f"{said} (is {image.label})" if wrong else said, ha="center", va="top",
        fontsize=8.5, color=_WRONG if wrong else _RIGHT,
    )  # fmt: skip


def decoded(text: str, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Read the pixels (H, W, C) that a record holds as base64."""
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(tuple(shape))


def _images(found: Mapping[str, Any], which: str, answer: str) -> tuple[ShownImage, ...]:
    return tuple(
        ShownImage(
            pixels=decoded(row[which], found["shape"]),
            label=int(row["label"]),
            answer=int(row[answer]),
        )
        for row in found["images"]
    )


def _pictures(run: Run, record: Record) -> Mapping[str, Any]:
    """Read the pictures of a record, which are too large to be kept of every one."""
    file = run.path / "records" / f"{record.trial}.json"
    if not file.is_file():
        return {}
    notes = json.loads(file.read_text(encoding="utf-8")).get("notes") or {}
    found: Mapping[str, Any] = (notes.get("evasion") or {}).get("pictures") or {}
    return found
