"""Where a run's files lie: one interface for a folder of a file system and for an object store."""

from trainables.storage.folders.cached import CachedFolder
from trainables.storage.folders.folder import Entry, Folder, checked_name
from trainables.storage.folders.local import LocalFolder, write_atomically
from trainables.storage.folders.opening import open_folder, read_all
from trainables.storage.folders.remote import RemoteFolder
from trainables.storage.folders.staging import staged_file, staged_folder
from trainables.storage.folders.uris import (
    absolute_place,
    cache_folder,
    is_uri,
    joined,
    redacted,
    uri_hash,
)

__all__ = [
    "CachedFolder",
    "Entry",
    "Folder",
    "LocalFolder",
    "RemoteFolder",
    "absolute_place",
    "cache_folder",
    "checked_name",
    "is_uri",
    "joined",
    "open_folder",
    "read_all",
    "redacted",
    "staged_file",
    "staged_folder",
    "uri_hash",
    "write_atomically",
]
