"""Counts what passes between the host and the pretended GPU."""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from tests.pretend_gpu.install import loaded_library

_Listener = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)
_TORCH = str(Path(torch.__file__).parent)


@dataclass(slots=True)
class Traffic:
    """Passages between host and device; complete once the count has ended."""

    reads: int = 0
    """Times that the host waited for the device: for a value, a copy out, or a size."""
    writes: int = 0
    """Copies of the host's memory to the device."""
    by_operator: dict[str, int] = field(default_factory=dict)
    """Passages by kind and operator, such as `read aten::nonzero`."""
    by_line: Counter[str] = field(default_factory=Counter)
    """Passages by kind, operator and line of Python, where lines were asked for."""


@contextmanager
def counted(*, where: bool = False) -> Iterator[Traffic]:
    """Count the traffic within the block.

    `where` adds the line of Python outside torch that each passage comes from; one of autograd's
    own thread has none.
    """
    traffic = Traffic()
    before = _counts()
    with _noting_lines(traffic.by_line) if where else _nothing():
        yield traffic
    new = _counts() - before
    traffic.by_operator = dict(new)
    traffic.reads = sum(n for name, n in new.items() if name.startswith("read "))
    traffic.writes = sum(n for name, n in new.items() if name.startswith("write "))


def _counts() -> Counter[str]:
    reads, writes = torch.ops.pretend.reads(), torch.ops.pretend.writes()
    return Counter(
        {f"read {name}": n for name, n in reads.items()}
        | {f"write {name}": n for name, n in writes.items()}
    )


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _noting_lines(lines: Counter[str]) -> Iterator[None]:
    """Have the library call back at each passage."""

    def note(kind: bytes, name: bytes) -> None:
        lines[f"{kind.decode()} {name.decode()} {_line(sys._getframe().f_back)}"] += 1

    listener = _Listener(note)
    library = loaded_library()
    library.pretend_listen(listener)
    try:
        yield
    finally:
        library.pretend_listen(None)


def _line(frame: FrameType | None) -> str:
    """Return the innermost line that is not torch's."""
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    if frame is None:
        return "in autograd's thread"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
