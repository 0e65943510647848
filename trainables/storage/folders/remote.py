"""A folder of an object store, by a pyarrow file system."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trainables.errors import StorageError
from trainables.storage.folders.folder import Entry, checked_name
from trainables.storage.folders.uris import joined

if TYPE_CHECKING:  # pyarrow takes a moment to import, and a run in a folder does without it
    from pyarrow import fs

logger = logging.getLogger(__name__)

ATTEMPTS = 8
"""With the waits between them about 32 s, besides what the store's own client tries."""
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 16.0
TOUCH_SECONDS = 600.0
"""A use is noted at most so often by a process: each note is a request."""
_USED = ".used."
_FINAL = (
    (r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|bucket .*not exist", "no such bucket"),
    (
        r"ACCESS_DENIED|HTTP status 40[13]\b|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ACCESS_KEY"
        r"|INVALID_CLIENT_TOKEN|MISSING_AUTHENTICATION|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN"
        r"|UNRECOGNIZED_CLIENT|Anonymous caller|InvalidAccessKeyId|SignatureDoesNotMatch",
        "access is refused; check the credentials of this machine and what they may do",
    ),
    (r"HTTP status 301\b|PermanentRedirect", "the bucket is in another region; add ?region=REGION"),
)
"""Answers that no further try will change: pattern, and what it means."""
_Found = TypeVar("_Found")


@dataclass(slots=True, eq=False)
class RemoteFolder:
    """A prefix of a bucket. An object is put in one piece, so it is there whole or not at all."""

    filesystem: fs.FileSystem
    path: str
    """BUCKET/PREFIX."""
    uri: str
    """Without credentials."""
    attempts: int = ATTEMPTS
    _touched: dict[str, float] = field(default_factory=dict)

    def read(self, name: str) -> bytes:
        """Return an object's content; FileNotFoundError where there is none of the name."""
        path = self._path(name)

        def whole() -> bytes:
            with self.filesystem.open_input_file(path) as file:
                size, content = file.size(), file.read()
            if len(content) != size:
                raise ConnectionError(f"the answer ended after {len(content)} of {size} bytes")
            return bytes(content)

        return self._tried(whole, name)

    def write(self, name: str, content: bytes) -> None:
        """Put an object, in the place of one that is there."""
        path = self._path(name)

        def put() -> None:
            stream = self.filesystem.open_output_stream(path)
            stream.write(content)
            # Not closed by `with`: closing completes the object, which after a failed write
            # must not be.
            stream.close()

        try:
            self._tried(put, name)
        except FileNotFoundError as error:
            raise StorageError(f"{joined(self.uri, name)}: no such bucket ({error})") from None

    def entries(self, suffix: str = "") -> list[Entry]:
        """List the objects right under the prefix whose names end so; hidden ones are not."""
        found = {info.base_name: info for info in self._infos() if info.is_file}
        entries = []
        for name, info in sorted(found.items()):
            if name.endswith(suffix) and not name.startswith("."):
                used = found.get(_USED + name)
                modified = max(_seconds(one) for one in (info, used) if one is not None)
                entries.append(Entry(name, info.size, modified))
        return entries

    def walk(self) -> list[Entry]:
        """List every object below the prefix, by its name from here; hidden ones are not."""
        start = len(self.path) + 1
        rows = [
            Entry(info.path[start:], info.size, _seconds(info))
            for info in self._infos(recursive=True)
            if info.is_file
        ]
        return sorted(
            (row for row in rows if not any(p.startswith(".") for p in row.name.split("/"))),
            key=lambda entry: entry.name,
        )

    def occupant(self) -> str | None:
        """Name something that lies under the prefix; None where nothing visible does."""
        names = [info.base_name for info in self._infos()]
        return min((name for name in names if not name.startswith(".")), default=None)

    def modified(self, name: str) -> float:
        """Return when an object was put, by the store's clock; FileNotFoundError where it is
        not.
        """
        from pyarrow import fs

        path = self._path(name)
        info = self._tried(lambda: self.filesystem.get_file_info(path), name)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(joined(self.uri, name))
        return _seconds(info)

    def delete(self, name: str) -> None:
        """Delete an object and the note of its use, where they are there."""
        path = self._path(name)
        for each in (path, self._marker(path)):
            try:
                self._tried(partial(self.filesystem.delete_file, each), name)
            except FileNotFoundError:
                continue

    def touch(self, name: str) -> None:
        """Note a use by an empty object next to this one, unless this process lately did."""
        now = time.monotonic()
        if now - self._touched.get(name, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[name] = now
            head, slash, last = name.rpartition("/")
            self.write(f"{head}{slash}{_USED}{last}", b"")

    def sub(self, name: str) -> RemoteFolder:
        """Return the folder of a longer prefix."""
        return RemoteFolder(
            self.filesystem, self._path(name), joined(self.uri, name), self.attempts
        )

    def _path(self, name: str) -> str:
        return f"{self.path}/{checked_name(name)}"

    def _marker(self, path: str) -> str:
        head, _, last = path.rpartition("/")
        return f"{head}/{_USED}{last}"

    def _infos(self, *, recursive: bool = False) -> list[fs.FileInfo]:
        from pyarrow import fs

        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        found: list[fs.FileInfo] = self._tried(lambda: self.filesystem.get_file_info(selector), "")
        return found

    def _tried(self, action: Callable[[], _Found], name: str) -> _Found:
        """Do it again, a bounded number of times, where the store may yet answer."""
        import pyarrow

        where = joined(self.uri, name) if name else self.uri
        wait = _FIRST_WAIT
        for attempt in range(1, self.attempts + 1):
            try:
                return action()
            except FileNotFoundError:
                raise
            except (OSError, pyarrow.ArrowException) as error:
                reason = " ".join(str(error).split())[:300]
                for pattern, meaning in _FINAL:
                    if re.search(pattern, reason):
                        raise StorageError(f"{where}: {meaning} ({reason})") from None
                if attempt == self.attempts or isinstance(error, pyarrow.ArrowInvalid):
                    raise StorageError(
                        f"{where}: the storage did not do it in {attempt} tries ({reason})"
                    ) from None
                logger.info("%s: %s; trying again", where, reason)
            # Spread, so that a cluster's workers do not all come back at the same moment.
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, _LONGEST_WAIT)
        raise AssertionError("the last try either returns or raises")


def _seconds(info: fs.FileInfo) -> float:
    moment: datetime | None = info.mtime
    return moment.timestamp() if moment is not None else 0.0
