"""The artefact store: results under the hash of all that made them, each built once.

An artefact is one safetensors file whose header carries its plain values as JSON, and a digest of
both. The file is the truth; the lease only keeps two workers from building the same one at the
same time.
"""

import hashlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.errors import StorageError
from trainables.storage.folders import (
    CachedFolder,
    Entry,
    Folder,
    LocalFolder,
    RemoteFolder,
    cache_folder,
    uri_hash,
)
from trainables.storage.identity import identity_hash

logger = logging.getLogger(__name__)
_POLL_SECONDS, _REMOTE_POLL_SECONDS = 0.05, 1.0
_SUFFIX = ".safetensors"
_PROGRESS = "progress-"


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """Named tensors and plain JSON values."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class Lease(Protocol):
    """Who may build an artefact: one holder a key, lost if not renewed in time."""

    ttl: float
    """Seconds."""

    def acquire(self, key: str, holder: str) -> bool:
        """Take the key, or say that another holds it."""

    def renew(self, key: str, holder: str) -> None:
        """Hold the key for another time to live."""

    def release(self, key: str, holder: str) -> None:
        """Return the key back."""


class FileLease:
    """A lease by files created exclusively; their modification time is the last renewal."""

    def __init__(self, root: Path, ttl: float = 30.0) -> None:
        self.root, self.ttl = root, ttl

    def acquire(self, key: str, holder: str) -> bool:
        """Create the key's file, in the place of one that was not renewed in time.

        Raises StorageError where no file can be created.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            self._bury_if_dead(path)
            return False
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(holder)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error
        return True

    def renew(self, key: str, holder: str) -> None:
        """Touch the key's file, where it is still ours."""
        if self._holder(key) == holder:
            os.utime(self._path(key))

    def release(self, key: str, holder: str) -> None:
        """Remove the key's file, where it is still ours."""
        if self._holder(key) == holder:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.lease"

    def _holder(self, key: str) -> str | None:
        try:
            return self._path(key).read_text()
        except FileNotFoundError:
            return None

    def _bury_if_dead(self, path: Path) -> None:
        # Renaming picks one winner among those who find the same dead lease.
        try:
            if self._is_dead(path):
                grave = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
                path.rename(grave)
                if not self._is_dead(grave):
                    # Another buried the dead one first: this lease is its successor's.
                    with suppress(FileExistsError):
                        os.link(grave, path)
                grave.unlink()
        except FileNotFoundError:
            return  # released or buried by another in the meantime

    def _is_dead(self, path: Path) -> bool:
        return time.time() - path.stat().st_mtime > self.ttl


class ArtefactStore:
    """Artefacts of a run, by kind and identity.

    Those in an object store are read through a cache of the node. Unless a lease that spans nodes
    is given, the workers of a node keep from building the same artefact at the same time, and those
    of two nodes may build it twice: that costs time, and nothing else.
    """

    def __init__(self, root: Path | Folder, lease: Lease | None = None) -> None:
        self.folder: Folder = LocalFolder(root) if isinstance(root, Path) else root
        self.shared = self.folder
        """Next to the cache, for what changes under its name."""
        self.poll_seconds = _POLL_SECONDS
        self.waited_seconds = 0.0
        """So far, for what others were building."""
        leases = Path(self.folder.uri) / "leases"
        if isinstance(self.folder, RemoteFolder):
            place = uri_hash(self.folder.uri)
            self.folder = CachedFolder(
                self.folder, LocalFolder(cache_folder() / "artefacts" / place)
            )
            self.poll_seconds = _REMOTE_POLL_SECONDS
            leases = cache_folder() / "leases" / place
        self.lease = lease if lease is not None else FileLease(leases)

    def get_or_build(
        self, kind: str, identity: Mapping[str, Any], builder: Callable[[], Artefact]
    ) -> Artefact:
        """Return the artefact, building it if nobody has; wait where another is building it."""
        key, holder = self.key(kind, identity), uuid.uuid4().hex
        while True:
            found = self._read(self.folder, key)
            if found is not None:
                return found
            if self.lease.acquire(key, holder):
                break
            time.sleep(self.poll_seconds)
            self.waited_seconds += self.poll_seconds
        with _renewing(self.lease, key, holder):
            found = self._read(
                self.folder, key
            )  # another may have finished it just before we took the lease
            if found is not None:
                return found
            built = builder()
            self._write(self.folder, key, built)
            self.forget_progress(key)
            return built

    def progress(self, key: str) -> Artefact | None:
        """Read how far the building of the key's artefact got, if a builder kept it."""
        return self._read(self.shared, _PROGRESS + key)

    def keep_progress(self, key: str, artefact: Artefact) -> None:
        """Keep how far the building got, in the place of what was kept before; atomically."""
        self._write(self.shared, _PROGRESS + key, artefact)

    def forget_progress(self, key: str) -> None:
        """Delete what was kept of the building, if anything was."""
        self.shared.delete(_PROGRESS + key + _SUFFIX)

    @staticmethod
    def key(kind: str, identity: Mapping[str, Any]) -> str:
        """Name an artefact: its kind and the hash of its identity."""
        return f"{kind}-{identity_hash(identity)}"

    def evict(self, *, keep: Iterable[str], max_bytes: int) -> list[str]:
        """Delete artefacts, the longest unused first, until the rest fits; those in `keep` stay.

        Whoever needs a deleted one again builds it again.
        """
        kept, evicted = set(keep), []
        entries = self._artefacts()
        excess = sum(entry.size for entry in entries) - max_bytes
        for entry in sorted(entries, key=lambda entry: entry.modified):
            if excess <= 0:
                break
            key = entry.name.removesuffix(_SUFFIX)
            if key not in kept:
                self.folder.delete(entry.name)
                evicted.append(key)
                excess -= entry.size
        return evicted

    def _artefacts(self) -> list[Entry]:
        return [row for row in self.folder.entries(_SUFFIX) if not row.name.startswith(_PROGRESS)]

    @staticmethod
    def _read(folder: Folder, key: str) -> Artefact | None:
        name = key + _SUFFIX
        try:
            artefact = _decoded(folder.read(name))
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            where = f"{folder.uri}: {name}"
            logger.warning("artefact %s cannot be read (%s); it is built again", where, error)
            folder.delete(name)
            return None
        folder.touch(name)  # eviction goes by the last use
        return artefact

    @staticmethod
    def _write(folder: Folder, key: str, artefact: Artefact) -> None:
        folder.write(key + _SUFFIX, _encoded(artefact))


def _encoded(artefact: Artefact) -> bytes:
    # Copies, since safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in artefact.tensors.items()
    }
    values = json.dumps(artefact.values, allow_nan=False)
    return save(tensors, {"values": values, "digest": _digest(tensors, values)})


def _decoded(content: bytes) -> Artefact:
    tensors = load(content)
    # The reader of whole files leaves the header's own values out.
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    metadata = json.loads(header)["__metadata__"]
    if metadata["digest"] != _digest(tensors, metadata["values"]):
        raise ValueError("its content is not what was written")
    return Artefact(tensors, json.loads(metadata["values"]))


def _digest(tensors: Mapping[str, Tensor], values: str) -> str:
    found = hashlib.sha256(values.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class _renewing:  # noqa: N801 - used as a context manager, like a function
    """Renew a lease from a thread while the artefact is being built, and release it at the end."""

    def __init__(self, lease: Lease, key: str, holder: str) -> None:
        self.lease, self.key, self.holder = lease, key, holder
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()
        self.lease.release(self.key, self.holder)

    def _renew(self) -> None:
        while not self.done.wait(self.lease.ttl / 3):
            try:
                self.lease.renew(self.key, self.holder)
            except StorageError as error:  # the next renewal may reach it; the work stays right
                logger.warning("%s: the claim could not be renewed (%s)", self.key, error)
