"""Networks named by the package that they come from: torchvision:resnet50, timm:NAME."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.errors import InputError
from trainables.models.given.adapted import Adapted, adapt
from trainables.models.given.preprocessing import RGB, Preprocessing


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where a package keeps its networks, and what their weights expect of an image."""

    names: Callable[[], list[str]]
    build: Callable[[str, int], nn.Module]
    """Network and number of classes -> untrained network."""
    preprocessing: Callable[[str], Preprocessing]


def is_adapted(name: str) -> bool:
    """Return whether a model's name is of a package that we adapt, not a user's import path."""
    return name.partition(":")[0] in ADAPTERS


def build_adapted(name: str, *, num_classes: int, channels: int) -> Adapted:
    """Build an untrained network by PACKAGE:NAME, its weights from torch's global generator.

    Raises InputError for a network that the package has not, a package that is not installed, and
    images of other than one or three channels.
    """
    if channels not in (1, RGB):
        raise InputError(f"{name} takes grey or colour images, but these have {channels} channels")
    adapter, own = _looked_up(name)
    preprocessing = adapter.preprocessing(own)
    network = adapter.build(own, num_classes)
    for layer in network.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment] # hooks do not bear it
    return adapt(network, preprocessing)


def preprocessing_of(name: str) -> Preprocessing:
    """Return what the published weights of PACKAGE:NAME expect of an image."""
    adapter, own = _looked_up(name)
    return adapter.preprocessing(own)


def _looked_up(name: str) -> tuple[Adapter, str]:
    package, _, own = name.partition(":")
    adapter = ADAPTERS[package]
    known = adapter.names()
    if own.partition(".")[0] not in known:  # timm names its sets of weights behind a dot
        close = ", ".join(difflib.get_close_matches(own, known, n=5)) or ", ".join(known[:5])
        raise InputError(f"unknown model {name!r}: {package} has {close} and {len(known)} in all")
    return adapter, own


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _torchvision_build(name: str, classes: int) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def _torchvision_preprocessing(name: str) -> Preprocessing:
    """Read the transforms of the network's default published weights, without fetching those."""
    from torchvision import models

    transforms = models.get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(
        resize=int(transforms.resize_size[0]),
        crop=int(transforms.crop_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=str(transforms.interpolation.value),
    )


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise InputError(
            "timm is not installed; install the extra of that name: pip install 'defense-sweep"
            "[timm]'"
        ) from None


def _timm_preprocessing(name: str) -> Preprocessing:
    try:
        config = _timm().get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise InputError(f"timm:{name}: {' '.join(str(error).split())}") from None
    crop = int(config.input_size[-1])
    return Preprocessing(
        resize=math.floor(crop / float(config.crop_pct)),
        crop=crop,
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation="bicubic" if config.interpolation == "bicubic" else "bilinear",
    )


ADAPTERS: Mapping[str, Adapter] = {
    "torchvision": Adapter(_torchvision_names, _torchvision_build, _torchvision_preprocessing),
    "timm": Adapter(
        lambda: list(_timm().list_models()),
        lambda name, classes: _timm().create_model(name, pretrained=False, num_classes=classes),
        _timm_preprocessing,
    ),
}
