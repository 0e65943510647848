"""Users' own code, named by import path."""

import hashlib
import importlib
import inspect
from pathlib import Path
from typing import Any

from trainables.errors import InputError


def import_attribute(path: str) -> Any:
    """Import `package.module:name`; InputError says which of the two is not there."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"{path}: cannot import {module_name!r} ({cause}); run where it can be imported"
        ) from error
    if not hasattr(module, attribute):
        raise InputError(f"{path}: module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)


def code_fingerprint(path: str) -> str:
    """Hash the source of an import path's module, so that changed code is another identity."""
    module = importlib.import_module(path.partition(":")[0])
    return hashlib.sha256(Path(inspect.getfile(module)).read_bytes()).hexdigest()
