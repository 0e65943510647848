"""Deploying with what is fitted to data noted, and deploying again where there is no data.

`Defense.deploy` runs twice in the life of an exported model: at its export, where `Fitting` notes
what is fitted, and wherever the bundle is loaded, where `Fitted` returns the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import torch

from trainables.datasets import Dataset, LabelledImages
from trainables.defenses.defense import Defense
from trainables.defenses.stack import Stack
from trainables.deployed.fits import Fitted, Fitting
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.models import model_fingerprint
from trainables.storage.artefacts import Artefact
from trainables.trial.context import TrialContext
from trainables.trial.deployment_spec import DeploymentSpec

_GUARDED = ("pools", "store")
"""What of a context only a builder may look into: a bundle has none of it."""


def deploy_noting(
    ctx: TrialContext, stack: Stack[Defense], model: torch.nn.Module
) -> tuple[Predictor, dict[str, Artefact]]:
    """Deploy a trained model, and return with the predictor all that was fitted on the way.

    Raises InputError where a defense looks at data, or at the store, except in a builder that it
    passed to `ctx.fitted`: what it makes of that could not be given back.
    """
    fits = Fitting()
    own = ", ".join(defense.name for defense in stack if ":" in defense.name) or "the stack"
    guarded: dict[str, Any] = {
        name: _Guarded(
            getattr(ctx, name),
            lambda: fits.open,
            f"{own}: deploy uses ctx.{name} outside of ctx.fitted(name, builder), so that what it "
            "fits would be in no bundle; fit it in a builder that you pass to ctx.fitted",
        )
        for name in _GUARDED
    }
    noting = replace(ctx, **guarded, dataset=without_images(ctx.dataset), fits=fits)
    return noting.deploy(stack, model), fits.noted


def context_without_data(
    spec: DeploymentSpec, dataset: Dataset, fits: Fitted, device: torch.device
) -> TrialContext:
    """Return a context in which a stack can be deployed again, and nothing be trained or fitted."""
    closed: dict[str, Any] = {
        name: _Guarded(None, lambda: False, f"a bundle has no ctx.{name}") for name in _GUARDED
    }
    code = model_fingerprint(spec.model.name, dataset)
    return TrialContext(
        spec, without_images(dataset), **closed, device=device, model_code=code, fits=fits
    )


def without_images(dataset: Dataset) -> Dataset:
    """Return the facts of a data set, its shape among them, without its rows."""
    images = dataset.images
    none = LabelledImages(
        pixels=images.pixels[:0], labels=images.labels[:0], scale=images.scale
    )  # fmt: skip
    return replace(dataset, images=none)


class _Guarded:
    """Stands for an object and lets nobody see it but while it is open."""

    def __init__(self, hidden: object, is_open: Callable[[], bool], message: str) -> None:
        self._hidden, self._is_open, self._message = hidden, is_open, message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hidden, name) if self._is_open() else self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(self._message)
