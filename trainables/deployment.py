"""What a deployment fits to data, noted as it is fitted, and given back where there is no data.

`Defense.deploy` runs twice in the life of an exported model: at its export, where `Fitting` notes
what is fitted, and wherever the bundle is loaded, where `Fitted` gives the same back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch

from trainables.artefacts import Artefact
from trainables.datasets import Dataset, LabelledImages
from trainables.errors import InputError
from trainables.predictor import Predictor

if TYPE_CHECKING:
    from trainables.context import TrialContext
    from trainables.defenses import Stack
    from trainables.spec import TrialSpec

Builder = Callable[[], Artefact]
_GUARDED = ("pools", "store")
"""What of a context only a builder may look into: a bundle has none of it."""


class Fits(Protocol):
    """Where a context takes what a deployment fits from."""

    def take(self, name: str, builder: Builder) -> Artefact:
        """Give what is fitted under a name; the builder fits it."""


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
    """Gives back what was noted, in the order in which it was fitted; fits nothing."""

    def __init__(self, noted: Mapping[str, Artefact]) -> None:
        self._noted = noted
        self._taken: set[str] = set()

    def take(self, name: str, builder: Builder) -> Artefact:
        """Give what was fitted under the name; InputError where nothing was."""
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


def deploy_noting(
    ctx: TrialContext, stack: Stack, model: torch.nn.Module
) -> tuple[Predictor, dict[str, Artefact]]:
    """Deploy a trained model, and give with the predictor all that was fitted on the way.

    Raises InputError where a defense looks at data, or at the store, but in a builder that it gave
    to `ctx.fitted`: what it makes of that could not be given back.
    """
    fits = Fitting()
    own = ", ".join(defense.name for defense in stack if ":" in defense.name) or "the stack"
    guarded: dict[str, Any] = {
        name: _Guarded(
            getattr(ctx, name),
            lambda: fits.open,
            f"{own}: deploy uses ctx.{name} outside of ctx.fitted(name, builder), so that what it "
            "fits would be in no bundle; fit it in a builder that you give to ctx.fitted",
        )
        for name in _GUARDED
    }
    noting = replace(ctx, **guarded, dataset=without_images(ctx.dataset), fits=fits)
    return noting.deploy(stack, model), fits.noted


def context_without_data(
    spec: TrialSpec, dataset: Dataset, fits: Fitted, device: torch.device
) -> TrialContext:
    """Give a context in which a stack can be deployed again, and nothing be trained or fitted."""
    from trainables.context import TrialContext  # which imports this file

    closed: dict[str, Any] = {
        name: _Guarded(None, lambda: False, f"a bundle has no ctx.{name}") for name in _GUARDED
    }
    return TrialContext(spec, without_images(dataset), **closed, device=device, fits=fits)


def without_images(dataset: Dataset) -> Dataset:
    """Give the facts of a data set, its shape among them, without its rows."""
    images = dataset.images
    none = LabelledImages(
        pixels=images.pixels[:0], labels=images.labels[:0], scale=images.scale
    )  # fmt: skip
    return replace(dataset, images=none)


def _numbered(name: str, taken: Mapping[str, Any] | set[str]) -> str:
    number, numbered = 1, name
    while numbered in taken:
        number += 1
        numbered = f"{name}-{number}"
    return numbered


class _Guarded:
    """Stands for an object and lets nobody see it but while it is open."""

    def __init__(self, hidden: object, is_open: Callable[[], bool], message: str) -> None:
        self._hidden, self._is_open, self._message = hidden, is_open, message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hidden, name) if self._is_open() else self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(self._message)
