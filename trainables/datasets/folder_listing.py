"""Which files of a user's folder are images, of which class, and of which official part.

What is not an image is passed over and counted; what could be an image that would be lost is
refused.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainables.datasets.dataset import counted
from trainables.datasets.image_files import is_image
from trainables.errors import InputError

IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""What Windows and macOS leave in folders and archives; names that begin with a dot are ignored
too."""
PARTS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "val": frozenset({"val", "valid", "validation"}),
    "test": frozenset({"test", "testing"}),
}
"""Names, in any case, of the folders of an official split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of a folder: the training rows first, then validation, then test."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    num_train: int | None
    """None: there is no official split."""
    num_validation: int
    classes: tuple[str, ...]
    passed_over: "PassedOver"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """What was found next to the images, so that it can be reported."""

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    """Folders, also of classes, that hold no image."""

    def words(self) -> list[str]:
        """Return a sentence for the files and one for the folders, where there are any."""
        found = []
        if self.files:
            endings = Counter(file.suffix.lower() or file.name for file in self.files)
            kinds = ", ".join(name for name, _ in endings.most_common(3))
            found.append(
                f"passed over {counted(len(self.files), 'file')} without an image ({kinds})"
            )
        if self.folders:
            names = ", ".join(f"{folder.name}/" for folder in self.folders[:3])
            found.append(
                f"passed over {counted(len(self.folders), 'folder')} without images ({names})"
            )
        return found


def list_folder(path: Path) -> Listing:
    """List the images of PATH/CLASS/*, or of PATH/train/CLASS/* with test/, val/ or both.

    Raises InputError, naming the place and the remedy, where images would be left out.
    """
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise InputError(f"folder:{path} {what}; name the folder that holds a folder per class")
    passed = PassedOver()
    top = _subfolders(path, passed)
    parts = _official_parts(path, top)
    if not parts:
        classes = _list_classes(path, top, passed)
        files, labels = _in_order(classes)
        return _listing([files], labels, None, 0, tuple(classes), passed)
    _check_parts(path, top, parts, passed)
    listed = {
        name: _list_classes(folder, _subfolders(folder, passed), passed)
        for name, folder in parts.items()
    }
    _check_same_classes(path, parts, listed)
    groups = {name: _in_order(classes) for name, classes in listed.items()}
    return _listing(
        [files for files, _ in groups.values()],
        [label for _, labels in groups.values() for label in labels],
        len(groups["train"][0]),
        len(groups["val"][0]) if "val" in groups else 0,
        tuple(listed["train"]),
        passed,
    )


def _listing(
    groups: Iterable[list[Path]],
    labels: list[int],
    num_train: int | None,
    num_validation: int,
    classes: tuple[str, ...],
    passed: PassedOver,
) -> Listing:
    return Listing(
        files=tuple(file for files in groups for file in files),
        labels=tuple(labels),
        num_train=num_train,
        num_validation=num_validation,
        classes=classes,
        passed_over=passed,
    )


def _official_parts(path: Path, top: Mapping[str, Path]) -> dict[str, Path]:
    """Return the folders of an official split by part; none where they are classes.

    A class may be called train, too: parts hold folders, classes hold images.
    """
    parts: dict[str, Path] = {}
    for part, names in PARTS.items():
        found = [folder for name, folder in top.items() if name.lower() in names]
        if len(found) > 1:
            raise InputError(
                f"{path} holds both {found[0].name}/ and {found[1].name}/; join them into one "
                f"{part}/"
            )
        if found:
            parts[part] = found[0]
    if {"train", "test"}.isdisjoint(parts):
        return {}
    all_of_them = len(parts) == len(top)
    return parts if all_of_them or any(_folders_in(part) for part in parts.values()) else {}


def _check_parts(
    path: Path, top: Mapping[str, Path], parts: Mapping[str, Path], passed: PassedOver
) -> None:
    if "train" not in parts or len(parts) == 1:
        missing = "train/" if "train" not in parts else "test/ and val/"
        raise InputError(
            f"{path} lacks {missing}; provide train/ with test/, val/ or both, or one folder per "
            "class directly, which is then split"
        )
    known = set(parts.values())
    for folder in top.values():
        if folder in known:
            continue
        if _holds_images(folder):
            raise InputError(
                f"{path} holds images in {folder.name}/ next to {parts['train'].name}/; move it "
                "away or into one of its parts"
            )
        passed.folders.append(folder)


def _check_same_classes(
    path: Path, parts: Mapping[str, Path], listed: Mapping[str, dict[str, list[Path]]]
) -> None:
    for name, classes in listed.items():
        odd = sorted(set(classes) ^ set(listed["train"]))
        if odd:
            raise InputError(
                f"{path}: the classes {odd} are in only one of {parts['train'].name}/ and "
                f"{parts[name].name}/; both need the same class folders"
            )


def _list_classes(
    path: Path, folders: Mapping[str, Path], passed: PassedOver
) -> dict[str, list[Path]]:
    """List the images of each class folder, classes and files sorted by name."""
    classes = {}
    for name, folder in folders.items():
        images = _list_images(folder, passed)
        if images:
            classes[name] = images
        else:
            passed.folders.append(folder)
    if not classes:
        raise InputError(f"{path} holds no images; it needs one folder of images per class")
    if len(classes) == 1:
        raise InputError(
            f"{path} holds only one class with images, {next(iter(classes))!r}; provide at least "
            "two"
        )
    return classes


def _subfolders(path: Path, passed: PassedOver) -> dict[str, Path]:
    """Return the folders in a folder by name; files next to them are passed over, except images."""
    folders = {}
    for entry in _visible(path):
        if entry.is_dir():
            folders[entry.name] = entry
        elif is_image(entry):
            raise InputError(
                f"{entry} lies directly in {path}; put every image into the folder of its class"
            )
        else:
            passed.files.append(entry)
    return folders


def _list_images(folder: Path, passed: PassedOver) -> list[Path]:
    images = []
    for entry in _visible(folder):
        if entry.is_dir():
            if _holds_images(entry):
                raise InputError(
                    f"{entry} is a folder inside a class; put its images into {folder} itself"
                )
            passed.folders.append(entry)
        elif is_image(entry):
            images.append(entry)
        else:
            passed.files.append(entry)
    return images


def _holds_images(folder: Path) -> bool:
    """Return whether there is an image in a folder or in those within it."""
    return any(
        _holds_images(entry) if entry.is_dir() and not entry.is_symlink() else is_image(entry)
        for entry in _visible(folder)
    )


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
        if not entry.name.startswith(".") and entry.name.lower() not in IGNORED
    ]


def _in_order(classes: Mapping[str, list[Path]]) -> tuple[list[Path], list[int]]:
    files = [file for group in classes.values() for file in group]
    labels = [label for label, group in enumerate(classes.values()) for _ in group]
    return files, labels
