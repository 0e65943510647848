"""What a deployment fits to data, noted as it is fitted, and given back where there is no data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from trainables.errors import InputError
from trainables.storage.artefacts import Artefact

Builder = Callable[[], Artefact]


class Fits(Protocol):
    """Where a context takes what a deployment fits from."""

    def take(self, name: str, builder: Builder) -> Artefact:
        """Return what is fitted under a name; the builder fits it."""


class Fitting:
    """Fits everything, and notes it."""

    def __init__(self) -> None:
        self.noted: dict[str, Artefact] = {}
        """Name, numbered from the second of its name on -> what was fitted."""
        self.open = False
        """Whether a builder is at work: then data may be looked at."""

    def take(self, name: str, builder: Builder) -> Artefact:
        """Fit it and note it; what a builder fits on its way is its own affair."""
        if self.open:
            return builder()
        with self._opened():
            built = builder()
        self.noted[_numbered(name, self.noted)] = built
        return built

    @contextmanager
    def _opened(self) -> Iterator[None]:
        self.open = True
        try:
            yield
        finally:
            self.open = False


class Fitted:
    """Returns what was noted, in the order in which it was fitted; fits nothing."""

    def __init__(self, noted: Mapping[str, Artefact]) -> None:
        self._noted = noted
        self._taken: set[str] = set()

    def take(self, name: str, builder: Builder) -> Artefact:
        """Return what was fitted under the name; InputError where nothing was."""
        del builder
        numbered = _numbered(name, self._taken)
        if numbered not in self._noted:
            raise InputError(f"the stack asks for {numbered!r}, which was not fitted at the export")
        self._taken.add(numbered)
        return self._noted[numbered]

    @property
    def left(self) -> list[str]:
        """What nobody has asked for."""
        return sorted(set(self._noted) - self._taken)


def _numbered(name: str, taken: Mapping[str, Any] | set[str]) -> str:
    number, numbered = 1, name
    while numbered in taken:
        number += 1
        numbered = f"{name}-{number}"
    return numbered
