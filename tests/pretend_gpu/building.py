"""Compiles the pretended device, once for each state of its sources and version of torch."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

_HERE = Path(__file__).resolve().parent
FOLDER = _HERE.parents[1] / "build" / "pretend_gpu"
"""Where libraries are kept from one session to the next; git ignores it."""
_SOURCES = ("operators.cpp", "runtime.cpp")
# Most of the time goes into reading torch's headers, so that -O0 is no faster; its operators take
# eight times as long.
_FLAGS = ("-std=c++20", "-O1", "-fPIC", "-Wall")
_TORCH = Path(torch.__file__).parent


class NoCompilerError(RuntimeError):
    """Raised where the machine has no C++ compiler."""


def build() -> Path:
    """Return the compiled library, compiled now if it has not been yet.

    Processes that ask at the same time share one compilation. Raises NoCompilerError, and
    RuntimeError with the compiler's words where it fails.
    """
    library = FOLDER / f"{_key()}.so"
    if library.exists():
        return library
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _locked(FOLDER / "lock"):
        if not library.exists():
            _compile(library)
    return library


def compiler() -> str:
    """Return the C++ compiler's path. Raises NoCompilerError."""
    name = os.environ.get("CXX", "g++")
    found = shutil.which(name)
    if found is None:
        raise NoCompilerError(f"the pretended GPU needs a C++ compiler, and there is no {name}")
    return found


def _key() -> str:
    """Return a hash of all that the library is made of."""
    digest = hashlib.sha256(" ".join((torch.__version__, *_FLAGS)).encode())
    for path in sorted((*_HERE.glob("*.cpp"), *_HERE.glob("*.h"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with its process, whatever ends that."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(library: Path) -> None:
    """Compile the sources side by side, and put the library in its place when it is whole."""
    tool = compiler()
    headers = _TORCH / "include"
    includes = (f"-I{headers}", f"-I{headers / 'torch/csrc/api/include'}")
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:

        def compiled(source: str) -> Path:
            target = Path(scratch) / f"{source}.o"
            _run(tool, *_FLAGS, *includes, "-c", _HERE / source, "-o", target)
            return target

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compiled, _SOURCES))
        whole = Path(scratch) / library.name
        linked = ("-ltorch", "-ltorch_cpu", "-lc10")
        _run(tool, "-shared", *objects, f"-L{_TORCH / 'lib'}", *linked, "-o", whole)
        whole.replace(library)


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the pretended GPU does not compile:\n{done.stderr[-4000:]}")
