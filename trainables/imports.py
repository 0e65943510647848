"""Users' own code, named by import path, package.module:name."""

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.code_files import files_of_module
from trainables.errors import InputError

IMPORT_FIX = "write package.module:name, and start where Python can import that module"


def import_attribute(path: str, kind: str) -> Any:
    """Import what a path names; `kind` says in errors what it should be.

    Raises InputError where the path is none, or the module or the name is not there or fails.
    """
    module_name, attribute = _split(path, kind)
    with running_user_code(f"{kind} {path!r}: {module_name} cannot be imported"):
        module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{kind} {path!r}: {module_name} has no {attribute!r}; {IMPORT_FIX}")
    return found


def code_fingerprint(path: str, kind: str) -> str:
    """Return the sha256 of a path's module: changed code is another identity.

    It covers the module's file and all that it imports from its own package or folder, and is the
    file's own sha256 where it imports nothing from there. Raises InputError where there is no such
    file.
    """
    module_name, _ = _split(path, kind)
    with running_user_code(f"{kind} {path!r}: {module_name} cannot be imported"):
        spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise InputError(f"{kind} {path!r}: no file holds a module {module_name!r}; {IMPORT_FIX}")
    files = files_of_module(module_name, Path(spec.origin))
    digests = {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(files.items())
    }
    if len(digests) == 1:
        return digests[module_name]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


@contextmanager
def running_user_code(what: str) -> Iterator[None]:
    """Raise InputError, with the cause, for anything that a user's own code raises."""
    try:
        yield
    except Exception as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{what} ({type(error).__name__}: {detail}); mend it") from error


def _split(path: str, kind: str) -> tuple[str, str]:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute or module_name.startswith("."):
        raise InputError(f"{kind} {path!r} is not an import path; {IMPORT_FIX}")
    return module_name, attribute
