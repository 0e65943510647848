"""Data that lies at a URI, brought to this node once; every process of the node shares it."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from trainables.errors import InputError, StorageError
from trainables.storage.folders.folder import Entry, checked_name
from trainables.storage.folders.local import write_atomically
from trainables.storage.folders.opening import open_folder
from trainables.storage.folders.remote import RemoteFolder
from trainables.storage.folders.uris import cache_folder, joined, redacted
from trainables.storage.identity import identity_hash

_THREADS = 8
"""Files fetched at once; each is held whole in memory."""


@lru_cache(maxsize=64)
def staged_folder(uri: str, under: str = "") -> Path:
    """Return a local folder that holds what lies below the URI, in `under` of it.

    It is fetched into the node's cache unless files of the same names, sizes and times were; a
    process that comes meanwhile waits. Raises InputError where nothing lies there, StorageError
    where it cannot be fetched.
    """
    remote = open_folder(uri)
    if not isinstance(remote, RemoteFolder):
        return Path(remote.uri)
    part = remote.sub(under) if under else remote
    entries = part.walk()
    if not entries:
        raise InputError(f"{part.uri}: nothing lies there")
    return _staged(part, entries, under)


@lru_cache(maxsize=64)
def staged_file(uri: str) -> Path:
    """Return a local copy of the file at the URI, fetched as by `staged_folder`."""
    place, mark, query = uri.partition("?")
    parent, _, name = place.rpartition("/")
    folder = open_folder(parent + mark + query)
    if not isinstance(folder, RemoteFolder):
        return Path(folder.uri) / name
    found = [entry for entry in folder.entries() if entry.name == name]
    if not found:
        raise InputError(f"{redacted(uri)}: no such file")
    return _staged(folder, found, "") / name


def _staged(remote: RemoteFolder, entries: list[Entry], under: str) -> Path:
    rows = [[entry.name, entry.size, entry.modified] for entry in entries]
    name = identity_hash({"uri": remote.uri, "under": under, "files": rows})
    base = cache_folder() / "staged"
    target = base / name
    if target.is_dir():
        return target
    try:
        base.mkdir(parents=True, exist_ok=True)
        with _locked(base / f"{name}.lock"):
            if not target.is_dir():
                _fetch(remote, entries, under, target)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def _fetch(remote: RemoteFolder, entries: list[Entry], under: str, target: Path) -> None:
    for dead in target.parent.glob(f".{target.name}.*"):  # of a process that was killed
        shutil.rmtree(dead)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    inner = temporary / under

    def fetch(entry: Entry) -> None:
        try:
            content = remote.read(entry.name)
        except FileNotFoundError:
            content = b""
        if len(content) != entry.size:
            raise StorageError(f"{joined(remote.uri, entry.name)}: changed while it was fetched")
        write_atomically(inner / checked_name(entry.name), content)

    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(fetch, entry) for entry in entries]:
                done.result()
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel lets go of the lock when its holder dies.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
