"""Puts the pretended GPU into this process, as the device `pretend` and the module `torch.pretend`.

Once in, it is the process's accelerator and cannot be taken out again: only processes that are
meant to run on it may call `install`.
"""

import ctypes
import os
from pathlib import Path

import torch
from torch.utils import backend_registration

NAME = "pretend"
LIBRARY_VARIABLE = "PRETEND_GPU_LIBRARY"
"""Names the compiled library to processes that load the device as they import torch."""


_loaded: list[ctypes.CDLL] = []


def install(library: Path) -> None:
    """Register the device that a library holds. A second call changes nothing."""
    if installed():
        return
    _loaded.append(ctypes.CDLL(str(library)))
    backend_registration.rename_privateuse1_backend(NAME)
    # Imported here: the module asks the library for its operators.
    from tests.pretend_gpu import device_module

    torch._register_device_module(NAME, device_module)
    backend_registration.generate_methods_for_privateuse1_backend()


def installed() -> bool:
    """Return whether the device is in this process."""
    return bool(_loaded)


def loaded_library() -> ctypes.CDLL:
    """Return the library that the device runs on."""
    return _loaded[0]


def autoload() -> None:
    """Install the device into a process that was asked to have it.

    torch calls this at the end of its import, where a folder on the path names it as an entry point
    of the group `torch.backends` (see `environment.py`).
    """
    install(Path(os.environ[LIBRARY_VARIABLE]))
