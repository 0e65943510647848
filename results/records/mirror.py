"""Runs in an object store: read through a copy on this machine, and their reports put back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from results.errors import ResultsError
from results.records.files import replace_file
from trainables.storage.folders.uris import HARMLESS, cache_folder

if TYPE_CHECKING:
    from pyarrow import fs

REPORT = ("trials.parquet", "report")
"""What is put back: a file, and all of a folder."""
LIBRARY = "report/plotly.min.js"
"""Most of a report's bytes, and the same each time: put once."""
_MANIFEST = "manifest.json"
_PLACES = ("", "records", "audit", "audit/records")
"""Folders of a run that are read."""
_THREADS = 32
"""An object store answers each of thousands of small reads in tens of milliseconds."""
_Item = TypeVar("_Item")


def mirrored(uri: str) -> Path:
    """Copy the manifests and records of a run and of its audit here, and return the folder.

    Only what was not copied before, or has changed since, is read; what is gone from the run goes
    from the copy. ResultsError where no run lies there or the store cannot be read.
    """
    filesystem, root = _opened(uri)
    folder = cache_folder() / "runs" / hashlib.sha256(shown(uri).encode()).hexdigest()[:16]
    with _told(uri):
        there = _listed(filesystem, root)
        if _MANIFEST not in there:
            raise ResultsError(
                f"no run at {shown(uri)}: it holds no manifest.json; use the URI that `launch` "
                "printed"
            )
        _drop_gone(folder, there)
        wanted = [info for name, info in there.items() if not _same(folder / name, info)]
        _each(wanted, lambda info: _fetch(filesystem, info, folder / info.path[len(root) + 1 :]))
    return folder


def put_report(folder: Path, uri: str) -> None:
    """Put a run's tables and report from its copy into the store; the page last of all.

    Pictures that are no longer part of the report go. ResultsError where it cannot be written.
    """
    from pyarrow import fs

    filesystem, root = _opened(uri)
    tops = [folder / name for name in REPORT]
    files = [top for top in tops if top.is_file()]
    files += [path for top in tops for path in top.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in files}
    page = "report/index.html"
    with _told(uri):
        selector = fs.FileSelector(f"{root}/report", recursive=True, allow_not_found=True)
        found = {i.path: i.size for i in filesystem.get_file_info(selector) if i.is_file}
        later = {page}
        if LIBRARY in names and found.get(f"{root}/{LIBRARY}") == names[LIBRARY].stat().st_size:
            later.add(LIBRARY)
        _each(
            [name for name in names if name not in later],
            lambda name: _put(filesystem, names[name], f"{root}/{name}"),
        )
        _put(filesystem, names[page], f"{root}/{page}")
        _each([p for p in found if p[len(root) + 1 :] not in names], filesystem.delete_file)


def shown(uri: str) -> str:
    """Return a URI without its credentials, as it may be printed.

    All that is given is one URI, whatever is in it: `redacted` looks for URIs in a text.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.partition("://")[0] + "://.."
    bucket = parts.netloc.rpartition("@")[2]
    kept = [p for p in parts.query.split("&") if p.partition("=")[0] in HARMLESS and "@" not in p]
    place = ".." if ":" in bucket else bucket + parts.path
    return f"{parts.scheme}://{place}" + (f"?{'&'.join(kept)}" if kept else "")


def _opened(uri: str) -> tuple[fs.FileSystem, str]:
    from pyarrow import ArrowException, fs

    if ".." in urlsplit(uri).path.split("/"):
        raise ResultsError(f"{shown(uri)}: its path has '..' in it")
    with _told(uri):
        try:
            filesystem, root = fs.FileSystem.from_uri(uri)
        except (ArrowException, ValueError):
            # Its message repeats the URI, and with it what may be secret.
            raise ResultsError(
                f"{shown(uri)}: is not the URI of a run; write s3://BUCKET/PREFIX/RUN or "
                "gs://BUCKET/PREFIX/RUN"
            ) from None
    return filesystem, root.rstrip("/")


def _listed(filesystem: fs.FileSystem, root: str) -> dict[str, fs.FileInfo]:
    """Return manifests and records by their names from the run's root."""
    from pyarrow import fs

    found = {}
    for place in _PLACES:
        selector = fs.FileSelector(f"{root}/{place}".rstrip("/"), allow_not_found=True)
        for info in filesystem.get_file_info(selector):
            named = info.base_name.endswith(".json") and not info.base_name.startswith(".")
            if (
                info.is_file
                and named
                and (place.endswith("records") or info.base_name == _MANIFEST)
            ):
                found[info.path[len(root) + 1 :]] = info
    return found


def _drop_gone(folder: Path, there: Iterable[str]) -> None:
    names = set(there)
    for path in [path for place in _PLACES for path in (folder / place).glob("*.json")]:
        if path.relative_to(folder).as_posix() not in names:
            path.unlink()


def _same(path: Path, info: fs.FileInfo) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (info.size, info.mtime_ns)


def _fetch(filesystem: fs.FileSystem, info: fs.FileInfo, path: Path) -> None:
    try:
        with filesystem.open_input_file(info.path) as file:
            size, content = file.size(), file.read()
    except FileNotFoundError:
        return  # deleted since it was listed
    if len(content) != size:
        raise OSError(f"{info.base_name} ended after {len(content)} of {size} bytes")

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)
        # By the time it is known whether it has changed.
        os.utime(temporary, ns=(info.mtime_ns, info.mtime_ns))

    replace_file(path, write)


def _put(filesystem: fs.FileSystem, path: Path, place: str) -> None:
    stream = filesystem.open_output_stream(place)
    stream.write(path.read_bytes())
    stream.close()  # not by `with`, which would complete the object after a failed write too


def _each(items: Iterable[_Item], action: Callable[[_Item], object]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(action, items):
            pass


@contextmanager
def _told(uri: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise ResultsError(f"{shown(uri)}: the storage cannot be used ({reason})") from None
