"""A folder of an object store, read through a cache of this node."""

import hashlib
import logging
from dataclasses import dataclass
from typing import ClassVar

from trainables.errors import StorageError
from trainables.storage.folders.folder import Entry
from trainables.storage.folders.local import LocalFolder
from trainables.storage.folders.remote import RemoteFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedFolder:
    """Files that never change under their names: read once by a node, then from its own disk.

    The cache is no more than a cache: what is damaged in it is read again from the store, what
    cannot be kept in it is not, and the files that were used longest ago go when it is full.
    """

    remote: RemoteFolder
    cache: LocalFolder
    max_bytes: int = 10 * 2**30

    _DIGEST: ClassVar[int] = hashlib.sha256().digest_size

    @property
    def uri(self) -> str:
        """That of the store."""
        return self.remote.uri

    def read(self, name: str) -> bytes:
        """Return a file's content, from the cache where it is there unharmed."""
        try:
            sealed = self.cache.read(name)
            digest, content = sealed[: self._DIGEST], sealed[self._DIGEST :]
            if hashlib.sha256(content).digest() == digest:
                self.cache.touch(name)
                return content
            logger.warning("%s/%s is damaged; it is read again", self.cache.uri, name)
        except FileNotFoundError:
            pass  # the common case: this node has not read it yet
        except StorageError as error:
            logger.warning("the node's cache cannot be read: %s", error)
        content = self.remote.read(name)
        self._keep(name, content)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file to the store, and into the cache."""
        self.remote.write(name, content)
        self._keep(name, content)

    def entries(self, suffix: str = "") -> list[Entry]:
        """List the store's files."""
        return self.remote.entries(suffix)

    def occupant(self) -> str | None:
        """Name something that the store holds here."""
        return self.remote.occupant()

    def delete(self, name: str) -> None:
        """Delete a file in the store, and from this node's cache."""
        self.remote.delete(name)
        self.cache.delete(name)

    def touch(self, name: str) -> None:
        """Note a use in the store."""
        self.remote.touch(name)

    def sub(self, name: str) -> "CachedFolder":
        """Return a folder in this folder."""
        return CachedFolder(self.remote.sub(name), self.cache.sub(name), self.max_bytes)

    def _keep(self, name: str, content: bytes) -> None:
        try:
            sealed = hashlib.sha256(content).digest() + content
            self._make_room(len(sealed))
            self.cache.write(name, sealed)
        except StorageError as error:
            logger.warning("the node's cache cannot be used: %s", error)

    def _make_room(self, wanted: int) -> None:
        found = self.cache.entries()
        excess = sum(entry.size for entry in found) + wanted - self.max_bytes
        for entry in sorted(found, key=lambda entry: entry.modified):
            if excess <= 0:
                return
            self.cache.delete(entry.name)
            excess -= entry.size
