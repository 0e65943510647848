"""What a bundle says of a deployed stack, and the stack built again from that: no data is needed.

Axes: C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from results.bundle.errors import BundleError
from trainables.datasets import Dataset, LabelledImages
from trainables.deployed.fits import Fitted
from trainables.deployed.noting import context_without_data
from trainables.deployed.predictor import PREDICTION_SEED, Predictor
from trainables.imports import code_fingerprint
from trainables.models import is_own
from trainables.storage.artefacts import Artefact
from trainables.trial.context import TrialContext
from trainables.trial.spec import TrialSpec, spec_from_canonical

_MODEL, _FITTED = "model.", "fitted."
_FACTS = ("name", "title", "num_train", "radius", "radius_l2", "augmentation", "fingerprint")
_LISTS = ("classes", "mean", "std")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Deployed:
    """A trained stack and what it fitted."""

    spec: TrialSpec
    dataset: Dataset
    weights: Mapping[str, Tensor]
    """State of the trained network."""
    fitted: Mapping[str, Artefact]
    """Name -> what the deployment fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """A stack that is deployed again, in a context without data."""

    predictor: Predictor
    ctx: TrialContext
    spec: TrialSpec


def describe(deployed: Deployed) -> dict[str, Any]:
    """Return what the index says of a stack, as plain values; the tensors are apart."""
    spec, dataset = replace(deployed.spec, threats=()), deployed.dataset
    return {
        "spec": spec.canonical(),
        "code": {name: code_fingerprint(name, kind) for name, kind in _own_code(spec).items()},
        "dataset": {
            **{name: getattr(dataset, name) for name in _FACTS},
            **{name: list(getattr(dataset, name)) for name in _LISTS},
            "shape": list(dataset.shape),
            "scale": dataset.images.scale,
        },
        "fitted": {name: dict(part.values) for name, part in deployed.fitted.items()},
        "prediction_seed": PREDICTION_SEED,
    }


def tensors_of(deployed: Deployed) -> dict[str, Tensor]:
    """Return all tensors of a stack by one name each, on the CPU, none sharing memory."""
    named = {f"{_MODEL}{name}": tensor for name, tensor in deployed.weights.items()}
    for part, artefact in deployed.fitted.items():
        named |= {f"{_FITTED}{part}.{name}": t for name, t in artefact.tensors.items()}
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in named.items()
    }


def restore(
    index: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    own_code: bool,
    device: torch.device,
) -> Restored:
    """Deploy the stack that an index and its tensors describe, by the code that deployed it first.

    Raises BundleError where they do not fit together, and, unless `own_code` allows it, where they
    name a user's own model or defense: to import it runs it.
    """
    if index.get("prediction_seed") != PREDICTION_SEED:
        raise BundleError(f"its prediction_seed is not {PREDICTION_SEED}, as this program's is")
    _check_code(index, own_code)
    try:
        spec = spec_from_canonical(index["spec"])
        fits = Fitted(_fitted(index["fitted"], tensors))
        ctx = context_without_data(spec, _dataset(index["dataset"], device), fits, device)
        weights = {
            name.removeprefix(_MODEL): tensor
            for name, tensor in tensors.items()
            if name.startswith(_MODEL)
        }
        predictor = ctx.deploy(spec.stack, ctx.with_weights(spec.stack, weights))
    # Whatever an index of another shape makes of our own code: it is refused, not run further.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise BundleError(f"its parts do not fit together ({detail}); export it again") from error
    if fits.left:
        raise BundleError(f"it holds {fits.left[0]!r}, which its stack does not ask for")
    return Restored(predictor, ctx, spec)


def _own_code(spec: TrialSpec) -> dict[str, str]:
    """Return the import paths that a spec names, with what each is."""
    named = {spec.model.name: "model"} if is_own(spec.model.name) else {}
    return named | {d.name: "defense" for d in spec.stack if ":" in d.name}


def _check_code(index: Mapping[str, Any], own_code: bool) -> None:
    """Refuse to import a user's code unasked, or code that is not that of the export."""
    try:
        plain = index["spec"]
        names = {str(plain["model"]["name"]): "model"}
        names |= {str(row["name"]): "defense" for row in plain["stack"]}
        known = dict(index["code"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"its index lacks {error}") from None
    for name, kind in names.items():
        if not (is_own(name) if kind == "model" else ":" in name):
            continue
        if not own_code:
            raise BundleError(
                f"it names the {kind} {name!r}, whose import would run code that is not ours; if "
                "you trust it, load(DIR, own_code=True) or --own-code"
            )
        if code_fingerprint(name, kind) != known.get(name):
            raise BundleError(f"the {kind} {name!r} here is not the code that was exported")


def _fitted(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Artefact]:
    found = {}
    for part, plain in values.items():
        start = f"{_FITTED}{part}."
        own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
        found[str(part)] = Artefact(own, dict(plain))
    return found


def _dataset(facts: Mapping[str, Any], device: torch.device) -> Dataset:
    channels, height, width = (int(side) for side in facts["shape"])
    none = LabelledImages(
        pixels=torch.zeros(0, channels, height, width, dtype=torch.uint8, device=device),
        labels=torch.zeros(0, dtype=torch.int64, device=device),
        scale=facts["scale"],
    )
    plain: dict[str, Any] = {name: facts[name] for name in _FACTS}
    lists: dict[str, Any] = {name: tuple(facts[name]) for name in _LISTS}
    return Dataset(images=none, **plain, **lists)
