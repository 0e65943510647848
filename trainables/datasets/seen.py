"""What given weights were trained on, as their owner declares it: a folder, or a list of files.

The images that they saw come first, as an official training set does. Files of the same content are
the same image, under whatever name: an unseen image is none that the weights saw.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from trainables.datasets.dataset import counted
from trainables.datasets.folder_listing import Listing, list_folder
from trainables.errors import InputError

_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Rows:
    """Images with their classes' numbers."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]


def with_seen_first(listing: Listing, path: Path, trained_on: Path) -> tuple[Listing, list[str]]:
    """Return a folder's images behind those that weights were trained on, and what was done.

    `trained_on` is a folder like the one that is listed, whose training part counts where it has
    one, or a file with a path a line, absolute or below `path`. Raises InputError where it names
    what is not there, other classes, or all images of the folder.
    """
    if trained_on.is_dir():
        seen = _of_folder(listing, path, trained_on)
    elif trained_on.is_file():
        seen = _of_list(listing, path, trained_on)
    else:
        raise InputError(f"--trained-on {trained_on}: there is no such file or folder")
    known = {_content(file) for file in seen.files}
    unseen = [row for row, file in enumerate(listing.files) if _content(file) not in known]
    if not unseen:
        raise InputError(
            f"--trained-on {trained_on}: the weights were trained on every image of {path}, "
            "and none is left to measure on"
        )
    test_from = 0 if listing.num_train is None else listing.num_train + listing.num_validation
    found = replace(
        listing,
        files=(*seen.files, *(listing.files[row] for row in unseen)),
        labels=(*seen.labels, *(listing.labels[row] for row in unseen)),
        num_train=len(seen.files),
        num_validation=sum(row < test_from for row in unseen),
    )
    return found, [
        f"the weights were trained on {counted(len(seen.files), 'image')}, and "
        f"{counted(len(unseen), 'image')} are held out"
    ]


def _of_folder(listing: Listing, path: Path, folder: Path) -> _Rows:
    other = list_folder(folder)
    odd = sorted(set(other.classes) ^ set(listing.classes))
    if odd:
        raise InputError(
            f"--trained-on {folder}: the classes {odd} are in only one of it and {path}; both need "
            "the same class folders"
        )
    number = {name: label for label, name in enumerate(listing.classes)}
    rows = len(other.files) if other.num_train is None else other.num_train
    labels = tuple(number[other.classes[label]] for label in other.labels[:rows])
    return _Rows(other.files[:rows], labels)


def _of_list(listing: Listing, path: Path, file: Path) -> _Rows:
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise InputError(f"--trained-on {file}: it is no list of files, a path a line") from None
    asked = dict.fromkeys((path / line).resolve() for line in lines if line)
    rows = {image.resolve(): row for row, image in enumerate(listing.files)}
    missing = [image for image in asked if image not in rows]
    if missing or not asked:
        named = ", ".join(str(image) for image in missing[:_NAMED]) or "nothing"
        raise InputError(
            f"--trained-on {file}: it names {named}"
            f"{f' and {len(missing) - _NAMED} more' if len(missing) > _NAMED else ''}, but no such "
            f"images of {path}; name files of that folder, or give the training folder itself"
        )
    chosen = sorted((rows[image] for image in asked), key=lambda row: (listing.labels[row], row))
    return _Rows(
        tuple(listing.files[row] for row in chosen), tuple(listing.labels[row] for row in chosen)
    )


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); mend its rights") from error
