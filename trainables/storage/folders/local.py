"""A folder of a file system, NFS included."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import StorageError
from trainables.storage.folders.folder import Entry, checked_name


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder by its path; it comes to be with its first file."""

    path: Path

    @property
    def uri(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError where there is none of the name."""
        path = self._path(name)
        with _told(path, "read"):
            return path.read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name, flush it to disk, then rename it."""
        path = self._path(name)
        with _told(path, "written"):
            write_atomically(path, content)

    def entries(self, suffix: str = "") -> list[Entry]:
        """List the files right in this folder whose names end so, by name; hidden ones are not."""
        found = []
        for item in self._items():
            if item.name.endswith(suffix) and not item.name.startswith("."):
                with suppress(FileNotFoundError):  # deleted by another in the meantime
                    stat = item.stat()
                    if item.is_file():
                        found.append(Entry(item.name, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda entry: entry.name)

    def occupant(self) -> str | None:
        """Name something that lies here, file or folder; None where nothing visible does."""
        return min((i.name for i in self._items() if not i.name.startswith(".")), default=None)

    def delete(self, name: str) -> None:
        """Delete a file, where it is there."""
        path = self._path(name)
        with _told(path, "deleted"):
            path.unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        """Set a file's time of modification to now, where it is there."""
        path = self._path(name)
        with _told(path, "touched"), suppress(FileNotFoundError):
            os.utime(path)

    def sub(self, name: str) -> "LocalFolder":
        """Return a folder in this folder."""
        return LocalFolder(self._path(name))

    def _path(self, name: str) -> Path:
        return self.path / checked_name(name)

    def _items(self) -> list[os.DirEntry[str]]:
        try:
            with _told(self.path, "listed"), os.scandir(self.path) as found:
                return list(found)
        except FileNotFoundError:
            return []


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name, flush it to disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


@contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    """Turn an OSError, such as that of a full disk, into one line that says where."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be {done}: {error.strerror or error}") from error
