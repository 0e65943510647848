"""A checkpoint file, read without running any code that may be in it.

Two formats are read: safetensors, and what `torch.save` writes of a state_dict. What training
programs wrap around a state_dict is taken off, and every step of that is put into words.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import PickleError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainables.errors import InputError
from trainables.storage.folders import absolute_place, is_uri, redacted, staged_file

SAVE_HINT = "save model.state_dict() with torch.save or safetensors"
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
"""Where training programs keep an exponential moving average of the weights."""
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Where they keep the weights themselves."""
_UNREADABLE = (
    OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError, EOFError, IndexError,
    PickleError,
)  # fmt: skip
"""What torch.load raises on files that hold something else, or are cut off."""
_CODE = re.compile(r"(?:GLOBAL|class|function) ([A-Za-z_][\w.]*)")
_DEEPEST = 3
"""Wrappers within wrappers that are looked through."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The tensors of a checkpoint file by name, as they are stored."""

    place: str
    """The file, as an error names it."""
    state: Mapping[str, Tensor]
    words: tuple[str, ...]
    """What was taken out of what, a sentence each."""


def given_place(text: str) -> str:
    """Return a checkpoint's place as specs hold it: an absolute path, or a URI.

    Raises InputError for a URI with credentials in it: specs stand in records.
    """
    place = absolute_place(text)
    assert place is not None
    if place != redacted(place):
        raise InputError(f"--weights {redacted(place)}: give credentials by the environment")
    return place


def local_file(place: str) -> Path:
    """Return the checkpoint's file on this node; what lies at a URI is fetched first.

    Raises InputError where there is no such file.
    """
    path = staged_file(place) if is_uri(place) else Path(place)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"--weights {redacted(place)}: {what}; name a checkpoint file")
    return path


def sha256_of(place: str) -> str:
    """Return the sha256 of a checkpoint's file, in hex.

    Raises InputError where there is no such file or it cannot be read.
    """
    path = local_file(place)
    found = path.stat()
    return _sha256(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=16)
def _sha256(path: Path, size: int, modified: int, changed: int) -> str:
    del size, modified, changed  # another file, where one of them is another
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"--weights {path}: cannot be read ({error.strerror})") from None


def read_checkpoint(place: str) -> Checkpoint:
    """Read the tensors of a checkpoint; nothing that it may hold besides them is run.

    Raises InputError, in one line, for a file that is not a checkpoint, is cut off, or holds no
    tensors by name.
    """
    path, shown = local_file(place), redacted(place)
    content = _safetensors(path, shown) if _is_safetensors(path) else _pickled(path, shown)
    words: list[str] = []
    state = _unwrapped(content, shown, words)
    return Checkpoint(shown, state, tuple(words))


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is named as safetensors are, or begins as they do."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"--weights {path}: cannot be read ({error.strerror})") from None
    return path.suffix == ".safetensors" or start[8:] == b"{"


def _safetensors(path: Path, shown: str) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--weights {shown}: a truncated or corrupt safetensors file ({_line(error)}); "
            "fetch or save it again"
        ) from None


def _pickled(path: Path, shown: str) -> object:
    try:
        return torch.load(os.fspath(path), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        text = " ".join(str(error).split())
        found = _CODE.search(text)
        if found and "nsupported" in text:
            raise InputError(
                f"--weights {shown}: holds {found[1]} besides tensors, and code in a checkpoint is "
                f"never run; {SAVE_HINT}"
            ) from None
        raise InputError(
            f"--weights {shown}: no checkpoint, or a truncated or corrupt one ({_line(error)}); "
            f"{SAVE_HINT}"
        ) from None


def _unwrapped(content: object, shown: str, words: list[str]) -> Mapping[str, Tensor]:
    """Look for the state_dict in what training programs save around it."""
    for _ in range(_DEEPEST + 1):
        if not isinstance(content, Mapping):
            break
        key = _wrapper(content)
        if key is None:
            state = {k: v for k, v in content.items() if isinstance(v, Tensor)}
            if not state or not all(isinstance(name, str) for name in content):
                break
            if others := [name for name in content if name not in state]:
                words.append(f"left out what is no tensor: {', '.join(sorted(others)[:3])}")
            return state
        others = [name for name in PLAIN if name != key and isinstance(content.get(name), Mapping)]
        if key in AVERAGED:
            beside = f", not the plain ones in {others[0]!r}" if others else ""
            words.append(f"took the averaged weights in {key!r}{beside}")
        else:
            words.append(f"took the weights in {key!r}")
        content = content[key]
    raise InputError(f"--weights {shown}: holds no tensors by name; {SAVE_HINT}")


def _wrapper(content: Mapping[Any, Any]) -> str | None:
    """Return the key under which the weights lie; None where these are the weights."""
    for key in (*AVERAGED, *PLAIN):
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner:
            return key
    return None


def _line(error: Exception) -> str:
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    return first[:160]
