"""What a data set is: its images, its standard attack radii, its statistics and its identity.

Legend: N images, C channels, H height, W width, K classes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from trainables.datasets.images import LabelledImages
from trainables.errors import InputError

Augmentation = Literal["none", "crop_flip"]
Resize = Literal["crop", "squash"]
"""crop: scale the short side to the image size and keep the centre; squash: scale both sides."""
RESIZES: tuple[Resize, ...] = ("crop", "squash")

MIN_PER_CLASS = 10
"""Images that a class needs where one set is split into five pools."""
MIN_PER_CLASS_TRAIN = 8
"""Official training images that a class needs: they are split into four pools."""
ROWS_AT_A_TIME = 1024
"""Rows counted at once for the statistics: a float copy of a whole folder would not fit."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset:
    """A data set as every training and every threat sees it."""

    name: str
    """As the user wrote it: digits, mnist, cifar10 or folder:PATH."""
    title: str
    """For people: MNIST, or the folder's own name."""
    images: LabelledImages
    """All rows; the official training rows first."""
    num_train: int | None
    """Number of official training rows, which come first; None: there is no official split."""
    num_validation: int = 0
    """Number of official validation rows, which come next; the rest are the official test rows."""
    classes: tuple[str, ...]
    radius: float
    """Standard Linf radius, in pixel values of [0, 1]."""
    radius_l2: float
    """Standard L2 radius, in pixel values of [0, 1]."""
    mean: tuple[float, ...]
    """Mean of each channel over the official training rows (all rows without a test set)."""
    std: tuple[float, ...]
    """Standard deviation of each channel over the same rows."""
    augmentation: Augmentation
    fingerprint: str
    """sha256, in hex, of pixels, labels, scale, official rows and class names."""
    notes: tuple[str, ...] = ()
    """What a loader did to the files, or passed over, each in a few words."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        _, channels, height, width = self.images.pixels.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """Return K."""
        return len(self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a loader may need to know; each uses what concerns it."""

    path: Path | None = None
    """The PATH of folder:PATH."""
    data_dir: Path | None = None
    """Where torchvision's data sets lie."""
    image_size: int | None = None
    """Height and width to resize to, in pixels."""
    resize: Resize = "crop"
    """How images that are not square become so."""
    skip_bad_images: bool = False
    """Whether images that cannot be read are left out."""
    trained_on: Path | None = None
    """The folder, or the list of files, that given weights were trained on."""
    download: bool = False
    device: torch.device


def make_dataset(
    *,
    name: str,
    title: str,
    place: str,
    images: LabelledImages,
    num_train: int | None,
    classes: tuple[str, ...],
    radius: float,
    radius_l2: float,
    augmentation: Augmentation,
    device: torch.device,
    num_validation: int = 0,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Check images that lie on the CPU, measure them and move them to the device.

    Raises InputError, naming `place` (where the images came from), for labels outside the classes
    and for a class with too few images to be in every pool.
    """
    check_class_sizes(images.labels, num_train, num_validation, classes, place)
    mean, std = channel_statistics(images.pixels[:num_train], images.scale)
    return Dataset(
        name=name,
        title=title,
        images=images.to(device),
        num_train=num_train,
        classes=classes,
        radius=radius,
        radius_l2=radius_l2,
        mean=mean,
        std=std,
        augmentation=augmentation,
        num_validation=num_validation,
        fingerprint=_fingerprint(images, num_train, num_validation, classes),
        notes=notes,
    )


def check_class_sizes(
    labels: Tensor,
    num_train: int | None,
    num_validation: int,
    classes: tuple[str, ...],
    place: str,
) -> None:
    """Raise InputError where a label is not a class, or a class is too small for every pool."""
    if len(classes) < 2:
        raise InputError(
            f"{place}: only {len(classes)} class; a classifier needs images of at least two classes"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise InputError(
            f"{place}: labels lie within [{int(labels.min())}, {int(labels.max())}], outside "
            f"[0, {len(classes) - 1}]; mend or fetch the label file again"
        )
    if num_train is None:
        _check_counts(labels, classes, MIN_PER_CLASS, f"{place}: class")
        return
    _check_counts(labels[:num_train], classes, MIN_PER_CLASS_TRAIN, f"{place}: training set: class")
    test = num_train + num_validation
    for part, part_labels in (("validation", labels[num_train:test]), ("test", labels[test:])):
        if len(part_labels):
            _check_counts(part_labels, classes, 1, f"{place}: {part} set: class")


def _check_counts(labels: Tensor, classes: tuple[str, ...], least: int, place: str) -> None:
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if count < least:
            raise InputError(
                f"{place} {name!r} has {count} of the at least {least} images that it needs to be "
                "in every pool; add images or remove the class"
            )


def channel_statistics(pixels: Tensor, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation of each channel, in pixel values of [0, 1].

    Exact, from histograms: the result does not depend on the order of a sum.
    """
    values = torch.arange(256, dtype=torch.float64) / scale
    means, stds = [], []
    for channel in range(pixels.shape[1]):
        counts = torch.zeros(256, dtype=torch.int64)
        for rows in torch.split(pixels[:, channel], ROWS_AT_A_TIME):
            counts += torch.bincount(rows.flatten(), minlength=256)
        share = counts / counts.sum()
        mean = float((share * values).sum())
        variance = float((share * (values - mean) ** 2).sum())
        means.append(mean)
        # A channel that never changes would divide by zero: one grey level is the least step.
        stds.append(max(variance**0.5, 1 / scale))
    return tuple(means), tuple(stds)


def _fingerprint(
    images: LabelledImages, num_train: int | None, num_validation: int, classes: tuple[str, ...]
) -> str:
    digest = hashlib.sha256()
    digest.update(images.pixels.contiguous().numpy().data)
    digest.update(images.labels.contiguous().numpy().data)
    # Data sets without an official validation set keep the fingerprint that they always had.
    rows = f"{num_train}+{num_validation}" if num_validation else str(num_train)
    facts = [str(tuple(images.pixels.shape)), repr(float(images.scale)), rows, *classes]
    digest.update("\0".join(facts).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def check_native_size(name: str, image_size: int | None, native: int) -> None:
    """Raise InputError where a data set of one fixed size is asked to be resized."""
    if image_size is not None and image_size != native:
        raise InputError(
            f"{name}: images are {native}x{native} and are not resized, but --image-size is "
            f"{image_size}; leave it out, or use folder:PATH"
        )


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural where that is right."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def one_line(error: BaseException) -> str:
    """Return another library's message, which may have many lines, as one."""
    return " ".join(str(error).split()) or type(error).__name__
