"""Turns what torchvision raises for missing or broken files into one line with the fix."""

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.datasets.dataset import LoadOptions, one_line
from trainables.errors import InputError

DATA_DIR_VARIABLE = "DEFENSE_SWEEP_DATA"

# What torchvision's readers were seen to raise for truncated, emptied or foreign files.
READ_ERRORS = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    AttributeError,
    ImportError,
    pickle.PickleError,
)


def require_data_dir(name: str, options: LoadOptions) -> Path:
    """Return the folder with torchvision's data sets; raise InputError where none was given."""
    if options.data_dir is None:
        raise InputError(
            f"{name}: no data folder is known; pass --data-dir DIR or set ${DATA_DIR_VARIABLE}"
        )
    return options.data_dir


def check_files_exist(name: str, root: Path, folder: str, files: Iterable[str]) -> None:
    """Raise InputError, with the expected layout, where a file is missing in root/folder."""
    missing = [file for file in files if not (root / folder / file).is_file()]
    if missing:
        raise InputError(
            f"{name}: {root / folder} lacks {', '.join(missing)} (expected, unpacked, as "
            f"DIR/{folder}/{missing[0]}, torchvision's layout); set the right DIR with "
            f"--data-dir or ${DATA_DIR_VARIABLE}"
        )


@contextmanager
def translate_read_errors(name: str, folder: Path) -> Iterator[None]:
    """Raise InputError in place of whatever a reader raises for files that are broken."""
    try:
        yield
    except READ_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{name}: the files in {folder} are truncated or corrupt, or could not be fetched "
            f"({one_line(error)}); fetch and unpack them again"
        ) from error
