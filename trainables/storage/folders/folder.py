"""What is asked of a folder, wherever it lies."""

from dataclasses import dataclass
from typing import Protocol

from trainables.errors import InputError


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a folder."""

    name: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970, by the clock of the storage; a later use counts as a change."""


class Folder(Protocol):
    """Named files, each there whole or not at all.

    A name may have parts joined by '/', and never leaves the folder (InputError). Every method
    raises StorageError, with one line, where the storage cannot be used.
    """

    @property
    def uri(self) -> str:
        """Where it lies, without credentials: fit for messages and for names."""

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError where there is none of the name."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in the place of one that is there: whole or not at all."""

    def entries(self, suffix: str = "") -> list[Entry]:
        """List the files right in this folder whose names end so, by name; hidden ones are not."""

    def occupant(self) -> str | None:
        """Name something that lies here, file or folder; None where nothing visible does."""

    def delete(self, name: str) -> None:
        """Delete a file, where it is there."""

    def touch(self, name: str) -> None:
        """Return that a file was used: its entry is modified now, or was not long ago."""

    def sub(self, name: str) -> "Folder":
        """Return a folder in this folder; it comes to be with its first file."""


def checked_name(name: str) -> str:
    """Return a name back that stays in its folder; InputError for any other."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(
        character in "\\" or ord(character) < 32 or ord(character) == 127 for character in name
    ):
        raise InputError(
            f"{name!r} is not a file name in a folder: write parts joined by '/', none of them "
            "empty, '.' or '..', without backslashes and control characters"
        )
    return name
