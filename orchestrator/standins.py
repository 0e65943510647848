"""Stand-ins for the libraries that only computing needs, so that `list` answers at once.

What attacks, defenses, threats, metrics, data sets and models declare stands in their own files,
beside code for torch and others, whose import takes seconds. Within `stood_in` those libraries are
empty modules, as Sphinx's autodoc_mock_imports makes them to read docstrings: what is declared can
be read, and nothing can be computed.
"""

import importlib.machinery
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any

LIBRARIES = frozenset(
    {"lpips", "opacus", "optuna", "pyautoattack", "pyarrow", "ray", "safetensors", "scipy",
     "skimage", "sklearn", "torch", "torchvision"}
)  # fmt: skip
_OURS = frozenset({"trainables", "search_spaces"})
"""Packages that import them; imported within, they are of no use outside."""


@contextmanager
def stood_in() -> Iterator[None]:
    """Import our modules without the libraries; afterwards none of it is left.

    Where torch is imported already, the libraries themselves are used.
    """
    if "torch" in sys.modules:
        yield
        return
    finder, before = _Finder(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in sorted(set(sys.modules) - before):
            if name.partition(".")[0] in LIBRARIES | _OURS:
                _forget(name)


def _forget(name: str) -> None:
    """Take a module away, also as an attribute of its package, where imports look first."""
    module = sys.modules.pop(name)
    package, _, own = name.rpartition(".")
    if getattr(sys.modules.get(package), own, None) is module:
        delattr(sys.modules[package], own)


class _Finder(MetaPathFinder, Loader):
    """Find the libraries, and every module within them, as stand-ins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a stand-in; None for any other module."""
        del path, target
        if fullname.partition(".")[0] not in LIBRARIES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return an empty module, which has any name that is asked of it."""
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _named(self, name)


class _Anything(type):
    """The class of the stand-ins: classes, so that they can be derived from and annotate."""

    def __getattr__(cls, name: str) -> Any:
        return _named(cls, name)


def _named(owner: Any, name: str) -> Any:
    """Return the stand-in of a name, always the same one; dunder names are not there."""
    if name.startswith("__"):
        raise AttributeError(name)
    found = _Anything(name, (_StandIn,), {})
    setattr(owner, name, found)
    return found


class _StandIn(metaclass=_Anything):
    """What a call of a stand-in returns: it decorates by returning what it is called with."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        del args, keywords

    def __getattr__(self, name: str) -> Any:
        return _named(type(self), name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else _StandIn()

    def __float__(self) -> float:
        return math.nan
