"""Every model by name, and a user's own by import path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import nn

from trainables.datasets import Dataset
from trainables.errors import InputError
from trainables.imports import code_fingerprint
from trainables.models.cnn_bn import cnn_bn
from trainables.models.contract import Classifier, ModelArguments
from trainables.models.given.adapters import build_adapted, is_adapted
from trainables.models.lenet5 import lenet5
from trainables.models.norms import ACTIVATIONS, Norm
from trainables.models.own_model import build_own, given_weights
from trainables.models.pixeldp_cnn import pixeldp_cnn
from trainables.models.resnet18 import resnet18
from trainables.models.small_cnn import small_cnn

IMPORT_HINT = "torchvision:NAME, timm:NAME, or package.module:factory for your own"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One of our models and what it can take."""

    build: Callable[[ModelArguments], Classifier]
    meaning: str
    source: str
    default_norm: Norm
    min_size: int
    """Least height and width of an image, in pixels."""


MODELS: Mapping[str, ModelEntry] = {
    "small_cnn": ModelEntry(
        build=small_cnn,
        meaning="two 3x3 convolutions and a dense layer, for small images",
        source="this project",
        default_norm="none",
        min_size=4,
    ),
    "lenet5": ModelEntry(
        build=lenet5,
        meaning="LeNet-5: two 5x5 convolutions with max-pooling, three dense layers (Model A)",
        source="LeCun et al., 1998",
        default_norm="none",
        min_size=4,
    ),
    "cnn_bn": ModelEntry(
        build=cnn_bn,
        meaning="three 3x3 convolutions with batch norm and max-pool, two dense layers (Model B)",
        source="Training robust neural networks",
        default_norm="batch",
        min_size=8,
    ),
    "pixeldp_cnn": ModelEntry(
        build=pixeldp_cnn,
        meaning="two 5x5 convolutions of stride 2 and a dense layer of 1,024",
        source="Lecuyer et al., 2019",
        default_norm="none",
        min_size=4,
    ),
    "resnet18": ModelEntry(
        build=resnet18,
        meaning="ResNet-18 with a 3x3 stem of stride 1 and no max-pool",
        source="He et al., 2016; torchvision",
        default_norm="batch",
        min_size=8,
    ),
}


def build_model(
    name: str, *, dataset: Dataset, norm: str = "default", activation: str = "relu"
) -> nn.Module:
    """Build an untrained model for a data set, its weights from torch's global generator.

    A name with a colon is an import path `package.module:factory`, called as
    factory(channels=, height=, width=, num_classes=, mean=, std=); torchvision:NAME and timm:NAME
    are networks of those packages, with their own preprocessing inside. Raises InputError for an
    unknown name, norm or activation, for images that are too small and for a factory that does
    not return a classifier of this data set.
    """
    if ":" in name:
        _check_given_layers(name, norm, activation)
        if is_adapted(name):
            channels, classes = dataset.shape[0], dataset.num_classes
            return build_adapted(name, num_classes=classes, channels=channels)
        return build_own(name, dataset)
    entry = _model_entry(name)
    _check_word("norm", norm, ("default", *get_args(Norm)))
    _check_word("activation", activation, tuple(ACTIVATIONS))
    channels, height, width = dataset.shape
    if min(height, width) < entry.min_size:
        raise InputError(
            f"{name} needs images of at least {entry.min_size}x{entry.min_size}, but those of "
            f"{dataset.name} are {height}x{width}; take another model or a larger --image-size"
        )
    arguments = ModelArguments(
        channels=channels,
        height=height,
        width=width,
        num_classes=dataset.num_classes,
        mean=dataset.mean,
        std=dataset.std,
        norm=entry.default_norm if norm == "default" else cast(Norm, norm),
        activation=activation,
    )
    # small_cnn on a CPU, batches of 16 to 256: forward passes take half to two thirds of the time,
    # training steps four fifths. A user's own network may `view` its activations, which needs the
    # usual layout.
    model: Classifier = entry.build(arguments).to(memory_format=torch.channels_last)
    return model


def is_own(name: str) -> bool:
    """Return whether a model's name is the import path of a user's own factory."""
    return ":" in name and not is_adapted(name)


def model_code_fingerprint(name: str) -> str:
    """Return the sha256 of the code of a user's factory, so that a change is another model.

    Our own models give "": their code is versioned. Raises InputError where there is no such file.
    """
    if not is_own(name):
        if not is_adapted(name):
            _model_entry(name)
        return ""
    return code_fingerprint(name, "model")


def model_fingerprint(name: str, dataset: Dataset) -> str:
    """Return what makes a user's model another one: its code, and the weights that it loads."""
    code = model_code_fingerprint(name)
    weights = given_weights(name, dataset) if is_own(name) else ""
    return f"{code}+{weights}" if weights else code


def _model_entry(name: str) -> ModelEntry:
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; known: {', '.join(MODELS)}, {IMPORT_HINT}")
    return MODELS[name]


def _check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise InputError(f"unknown {what} {word!r}; known: {', '.join(known)}")


def _check_given_layers(name: str, norm: str, activation: str) -> None:
    if norm != "default" or activation != "relu":
        raise InputError(
            f"model {name!r} is not ours, so norm ({norm}) and activation ({activation}) cannot be "
            "chosen here; leave them out"
        )
