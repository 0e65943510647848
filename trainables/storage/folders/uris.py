"""URIs of storage: reading, joining, and hiding what is secret in them."""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trainables.errors import InputError

CACHE_VARIABLE = "DEFENSE_SWEEP_CACHE"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*")
HARMLESS = ("region", "scheme", "endpoint_override", "tls_ca_file_path")
"""Query parameters that may be given, and shown; what a URI has besides them may be a secret."""


def is_uri(text: str) -> bool:
    """Return whether this is a URI, SCHEME://.., and not a path."""
    return _URI.match(text) is not None


def redacted(text: str) -> str:
    """Take user, password and unknown query parameters out of every URI in a text."""
    return _URI.sub(lambda found: _redacted(found.group()), text)


def joined(uri: str, name: str) -> str:
    """Name something below a URI or a path: the query stays at the end."""
    place, mark, query = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


def absolute_place(place: str | Path | None) -> str | None:
    """Make a path absolute, so that it means the same to every worker; a URI does already."""
    if place is None or is_uri(str(place)):
        return None if place is None else str(place)
    return str(Path(place).expanduser().absolute())


def uri_hash(uri: str) -> str:
    """Name a URI in a file name of this machine; its credentials have no part in it."""
    return hashlib.sha256(redacted(uri).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Return this node's cache, $DEFENSE_SWEEP_CACHE or the user's own; all of it may be
    deleted.
    """
    given = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME")
    user = Path(base) if base else Path.home() / ".cache"
    return Path(given).expanduser().absolute() if given else user / "defense-sweep"


def parse_uri(uri: str) -> tuple[str, str, str | None, dict[str, str]]:
    """Read a URI as scheme, place (BUCKET/PREFIX), user[:password] and query.

    Raises InputError for what is none.
    """
    scheme = uri.partition("://")[0]
    shown = redacted(uri)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InputError(f"{shown}: is not a URI ({error})") from None
    user, at, bucket = parts.netloc.rpartition("@")
    if not bucket or ":" in bucket:
        raise InputError(
            f"{shown}: names no bucket; write {scheme}://BUCKET/PREFIX, and set credentials in "
            "the environment"
        )
    path = unquote(parts.path).strip("/")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise InputError(f"{shown}: a part of its path is empty, '.' or '..'")
    query = {}
    for pair in filter(None, parts.query.split("&")):
        key, _, value = pair.partition("=")
        if key not in HARMLESS:
            raise InputError(f"{shown}: unknown parameter {key!r}; known: {', '.join(HARMLESS)}")
        query[key] = unquote(value)
    return scheme.lower(), f"{bucket}/{path}".rstrip("/"), user if at else None, query


def _redacted(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    authority = place.partition("/")[0]
    if "@" in authority:
        place = authority.rpartition("@")[2] + place[len(authority) :]
    elif ":" in authority and scheme.lower() not in ("http", "https", "tcp"):
        # No port: a secret with an unescaped slash in it, which no store could be opened with.
        place = place.rpartition("@")[2] if "@" in place else ".."
    kept = [pair for pair in query.split("&") if pair.partition("=")[0] in HARMLESS]
    shown = "&".join(pair for pair in kept if "@" not in pair)
    return f"{scheme}://{place}" + (f"?{shown}" if shown else "")
