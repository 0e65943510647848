"""The artefact store: results under the hash of all that made them, each built once.

An artefact is one safetensors file whose header carries its plain values as JSON. The file is the
truth; the lease only keeps two workers from building the same one at the same time.
"""

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainables.identity import identity_hash
from trainables.record import write_atomically

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.05


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
        """Give the key back."""


class FileLease:
    """A lease by files created exclusively; their modification time is the last renewal."""

    def __init__(self, root: Path, ttl: float = 30.0) -> None:
        self.root, self.ttl = root, ttl

    def acquire(self, key: str, holder: str) -> bool:
        """Create the key's file, in the place of one that was not renewed in time."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            self._bury_if_dead(path)
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(holder)
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
    """Artefacts of a run, by kind and identity."""

    def __init__(self, root: Path, lease: Lease | None = None) -> None:
        self.root = root
        self.lease = lease if lease is not None else FileLease(root / "leases")

    def get_or_build(
        self, kind: str, identity: Mapping[str, Any], builder: Callable[[], Artefact]
    ) -> Artefact:
        """Give the artefact, building it if nobody has; wait where another is building it."""
        key, holder = self.key(kind, identity), uuid.uuid4().hex
        while True:
            found = self._read(key)
            if found is not None:
                return found
            if self.lease.acquire(key, holder):
                break
            time.sleep(_POLL_SECONDS)
        with _renewing(self.lease, key, holder):
            found = self._read(key)  # another may have finished it just before we took the lease
            if found is not None:
                return found
            built = builder()
            self._write(key, built)
            return built

    @staticmethod
    def key(kind: str, identity: Mapping[str, Any]) -> str:
        """Name an artefact: its kind and the hash of its identity."""
        return f"{kind}-{identity_hash(identity)}"

    def size_bytes(self) -> int:
        """Add up the artefacts' files."""
        return sum(path.stat().st_size for path in self.root.glob("*.safetensors"))

    def evict(self, *, keep: Iterable[str], max_bytes: int) -> list[str]:
        """Delete artefacts, the longest unused first, until the rest fits; those in `keep` stay.

        Whoever needs a deleted one again builds it again.
        """
        kept, evicted = set(keep), []
        files = [(path.stat(), path) for path in self.root.glob("*.safetensors")]
        excess = sum(stat.st_size for stat, _ in files) - max_bytes
        for stat, path in sorted(files, key=lambda row: row[0].st_mtime):
            if excess <= 0:
                break
            if path.stem not in kept:
                path.unlink(missing_ok=True)
                evicted.append(path.stem)
                excess -= stat.st_size
        return evicted

    def _path(self, key: str) -> Path:
        return self.root / f"{key}.safetensors"

    def _read(self, key: str) -> Artefact | None:
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                values = json.loads(file.metadata()["values"])
            os.utime(path)  # eviction goes by the last use
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            logger.warning("artefact %s cannot be read (%s); it is built again", path, error)
            path.unlink(missing_ok=True)
            return None
        return Artefact(tensors, values)

    def _write(self, key: str, artefact: Artefact) -> None:
        # Copies, since safetensors refuses tensors that share memory, as tied weights do.
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in artefact.tensors.items()
        }
        metadata = {"values": json.dumps(artefact.values, allow_nan=False)}
        write_atomically(self._path(key), save(tensors, metadata))


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
            self.lease.renew(self.key, self.holder)
