"""The files of a bundle: which there are, how they appear together, and how they are read back.

Nothing is read but members by their known names, as plain files of the folder itself, and nothing
is believed before its hash agrees. `bundle.json` holds the hashes of the other members, and
`bundle.json.sha256`, a line as of `sha256sum`, holds its own.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from results.bundle.errors import BundleError

INDEX = "bundle.json"
SEAL = "bundle.json.sha256"
WEIGHTS = "weights.safetensors"
REFERENCE = "reference.safetensors"
CARD = "card.json"
CARD_TEXT = "MODEL_CARD.md"
PROGRAM = "model.pt2"
REQUIRED = (WEIGHTS, REFERENCE, CARD, CARD_TEXT)
OPTIONAL = (PROGRAM,)
FORMAT = 1
KIND = "defense-sweep bundle"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""O_NONBLOCK: to open a pipe must not wait for its writer."""


def check_absent(out: Path) -> None:
    """Raise BundleError where a bundle cannot be written: something is there already."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleError(f"{out} is not a folder; name one that is new or empty")
    if out.is_dir() and any(out.iterdir()):
        raise BundleError(f"{out} is not empty, and nothing is overwritten; name a new folder")


def write_members(
    out: Path,
    members: Mapping[str, bytes],
    index: Mapping[str, Any],
    check: Callable[[Path], None],
) -> None:
    """Write members, index and seal into a folder that appears whole or not at all.

    They are written next to it, where `check` looks at them first. Raises BundleError where the
    folder is there and not empty, or cannot be written.
    """
    check_absent(out)
    hashes = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(members.items())
    }
    text = to_json({**index, "files": hashes})
    seal = f"{hashlib.sha256(text).hexdigest()}  {INDEX}\n".encode()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise BundleError(f"{out} cannot be written: {error.strerror}") from None
    try:
        beside.chmod(0o755)
        for name, content in {**members, INDEX: text, SEAL: seal}.items():
            _write(beside / name, content)
        check(beside)
        check_absent(out)
        beside.rename(out)
    except OSError as error:
        raise BundleError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_members(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read the index and the members that it names, all of them hashed.

    Raises BundleError for whatever is missing, is not a plain file of the folder, or is not what
    was written.
    """
    if not folder.is_dir():
        raise BundleError(f"no bundle at {folder}: no such folder")
    text = _read(folder, INDEX)
    seal = _read(folder, SEAL)
    if seal != f"{hashlib.sha256(text).hexdigest()}  {INDEX}\n".encode():
        raise BundleError(_changed(folder, INDEX))
    index = from_json(text, folder / INDEX)
    if index.get("kind") != KIND:
        raise BundleError(f"{folder / INDEX} is the index of no bundle")
    if index.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is a bundle of format {index.get('format')!r}, this program reads {FORMAT}; "
            "use the version that wrote it"
        )
    files = index.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{folder / INDEX} lacks its list of files")
    if unknown := sorted(set(files) - {*REQUIRED, *OPTIONAL}):
        raise BundleError(
            f"{folder / INDEX} names {unknown[0]!r}, which is not a member of a bundle"
        )
    if lacking := [name for name in REQUIRED if name not in files]:
        raise BundleError(f"{folder / INDEX} lacks {', '.join(lacking)}")
    return index, {name: _hashed(folder, name, files[name]) for name in files}


def to_json(plain: Mapping[str, Any]) -> bytes:
    """Write plain values as JSON text."""
    text = json.dumps(plain, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def from_json(content: bytes, where: Path) -> dict[str, Any]:
    """Read a JSON object; BundleError where it is none."""
    try:
        plain = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}); fetch the bundle again") from None
    if not isinstance(plain, dict):
        raise BundleError(f"{where} holds no JSON object; fetch the bundle again")
    return plain


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _hashed(folder: Path, name: str, expected: Any) -> bytes:
    content = _read(folder, name)
    found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    if found != expected:
        raise BundleError(_changed(folder, name))
    return content


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; fetch the bundle again") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise BundleError(f"{path} is a link, which no member of a bundle may be") from None
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleError(f"{path} is not a plain file, as every member of a bundle must be")
        return file.read()


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _changed(folder: Path, name: str) -> str:
    return (
        f"{folder / name} is not what was exported: its hash differs, so it was changed or cut "
        "off; fetch the bundle again, or export it again"
    )
