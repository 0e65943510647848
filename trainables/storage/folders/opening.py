"""From a path or a URI to a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from trainables.errors import InputError, StorageError
from trainables.storage.folders.folder import Folder
from trainables.storage.folders.local import LocalFolder
from trainables.storage.folders.remote import ATTEMPTS, RemoteFolder
from trainables.storage.folders.uris import is_uri, parse_uri, redacted

if TYPE_CHECKING:  # pyarrow takes a moment to import, and a run in a folder does without it
    from pyarrow import fs

_THREADS = 32
"""Readers of many small files at once: an object store answers each in tens of milliseconds."""
_CONNECT_SECONDS = 5.0
_CLIENT_TRIES = 2
"""Tries of the store's own client, within each of ours."""


def open_folder(place: Path | str, attempts: int = ATTEMPTS) -> Folder:
    """Open a folder: a path, file:///PATH, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.

    Nothing is asked of the store yet, except an s3 bucket's region where neither the URI nor the
    environment names one. Raises InputError for another scheme and for a URI that is malformed,
    StorageError where the region cannot be found out.
    """
    text = str(place)
    if not is_uri(text):
        return LocalFolder(Path(place))
    if text.lower().startswith("file://"):
        return LocalFolder(Path(unquote(urlsplit(text).path)))
    filesystem, path = _opened(text)
    return RemoteFolder(filesystem, path, redacted(text), attempts)


def read_all(folder: Folder, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Return names and contents in the order asked for, read by many threads.

    A file that is gone by then is left out.
    """

    def read(name: str) -> tuple[str, bytes | None]:
        try:
            return name, folder.read(name)
        except FileNotFoundError:
            return name, None

    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in _batches(names):  # else everything would be read before the first is used
            for name, content in pool.map(read, batch):
                if content is not None:
                    yield name, content


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(names)
    while batch := list(islice(waiting, 8 * _THREADS)):
        yield batch


@lru_cache(maxsize=64)
def _opened(uri: str) -> tuple[fs.FileSystem, str]:
    import pyarrow

    scheme, path, user, query = parse_uri(uri)
    if scheme not in _SCHEMES:
        raise InputError(
            f"{redacted(uri)}: unknown scheme {scheme!r}; write a path, s3://BUCKET/PREFIX or "
            "gs://BUCKET/PREFIX"
        )
    try:
        return _SCHEMES[scheme](path, user, query), path
    except InputError as error:
        raise InputError(f"{redacted(uri)}: {error}") from None
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        reason = " ".join(redacted(str(error)).split())
        raise StorageError(f"{redacted(uri)}: cannot be opened ({reason})") from None


def _s3(path: str, user: str | None, query: dict[str, str]) -> fs.FileSystem:
    from pyarrow import fs

    region = query.get("region") or os.environ.get("AWS_REGION")
    region = region or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and "endpoint_override" not in query:
        region = fs.resolve_s3_region(path.partition("/")[0])
    key, _, secret = (user or "").partition(":")
    return fs.S3FileSystem(
        access_key=unquote(key) or None,
        secret_key=unquote(secret) or None,
        region=region,
        scheme=query.get("scheme"),
        endpoint_override=query.get("endpoint_override"),
        tls_ca_file_path=query.get("tls_ca_file_path"),
        connect_timeout=_CONNECT_SECONDS,
        # Small objects are put by one request instead of the three of an upload in parts.
        allow_delayed_open=True,
        background_writes=False,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_CLIENT_TRIES),
    )


def _gs(path: str, user: str | None, query: dict[str, str]) -> fs.FileSystem:
    from pyarrow import fs

    del path
    if user is not None and user != "anonymous":
        raise InputError("gs credentials come from the environment, not from the URI")
    return fs.GcsFileSystem(
        anonymous=user is not None,
        scheme=query.get("scheme", "https"),
        endpoint_override=query.get("endpoint_override"),
        retry_time_limit=timedelta(seconds=20),
    )


_SCHEMES = {"s3": _s3, "gs": _gs}
