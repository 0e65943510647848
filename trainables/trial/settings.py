"""What is trained on what, and how: the settings of a trial's data, model and training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trainables.datasets import RESIZES, Resize, dataset_entry
from trainables.declared import NOTHING
from trainables.errors import InputError
from trainables.models import ACTIVATIONS, MODELS
from trainables.parameters import check_parameters, parameter

Effort = Literal["screen", "audit"]
EFFORTS: tuple[Effort, ...] = ("screen", "audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Which images, and which of them are trained on and measured."""

    name: str = parameter("digits", kind="word", meaning="data set, or folder:PATH")
    image_size: int | None = None
    """Side in pixels that a folder's images are resized to."""
    pools: str = parameter(
        "search", kind="word", words=("search", "published", "deployment"),
        meaning="search: five pools; published: the official training and test set, whole; "
        "deployment: trained on all except calibration and test",
    )  # fmt: skip
    train_images: int | None = None
    """Training images that are used; None: all."""
    measured_images: int | None = None
    """Held-out images that are used; None: all."""
    resize: Resize = "crop"
    """How a folder's images that are not square become so."""
    skip_bad_images: bool = False
    """Whether a folder's images that cannot be read are left out."""
    accepted: str = ""
    """Hash of the images and the user's code that have replaced those that a run began with."""
    trained_on: str = ""
    """What given weights were trained on: NOTHING of it, the absolute path of a folder or of a list
    of files; "": the official training set."""

    def __post_init__(self) -> None:
        check_parameters(self, "data")
        dataset_entry(self.name)
        if self.trained_on not in ("", NOTHING) and not Path(self.trained_on).is_absolute():
            raise InputError(
                f"data: trained_on {self.trained_on!r}: write {NOTHING}, or the path of a folder "
                "or of a list of files on this machine"
            )
        if self.resize not in RESIZES:
            raise InputError(f"data: unknown resize {self.resize!r}; known: {', '.join(RESIZES)}")
        for name in ("image_size", "train_images", "measured_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"data: {name} must be at least 1, but got {value}")
        if self.pools == "deployment" and self.train_images is not None:
            raise InputError(
                "data: pools: deployment trains on the whole training data; leave train_images out"
            )

    def canonical(self) -> dict[str, Any]:
        """Return the fields as plain JSON values.

        Later fields stand in it only where they are not the default: identities outlive them.
        """
        plain = asdict(self)
        later = {"resize": "crop", "skip_bad_images": False, "accepted": "", "trained_on": ""}
        return {name: v for name, v in plain.items() if name not in later or v != later[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which network."""

    name: str = parameter("small_cnn", kind="word", meaning="model, or package.module:factory")
    norm: str = parameter(
        "default", kind="word", words=("default", "batch", "group", "none"),
        meaning="normalisation layers",
    )  # fmt: skip
    weights: str = ""
    """Checkpoint, as an absolute path or a URI, whose weights are kept as they are; "": trained."""
    weights_sha256: str = ""
    """Of the checkpoint's file, in hex: another file is another model."""

    def __post_init__(self) -> None:
        check_parameters(self, "model")
        if bool(self.weights) != bool(self.weights_sha256):
            raise InputError("model: weights and weights_sha256 go together")
        if self.name not in MODELS and ":" not in self.name:
            raise InputError(
                f"unknown model {self.name!r}; known: {', '.join(MODELS)}, "
                "torchvision:NAME, timm:NAME, or package.module:factory"
            )

    @property
    def untrained(self) -> ModelSpec:
        """The same network without given weights, as whoever trains one of his own has it."""
        return replace(self, weights="", weights_sha256="")

    def canonical(self) -> dict[str, Any]:
        """Return the fields as plain JSON values; without given weights, the two first alone."""
        plain = asdict(self)
        return plain if self.weights else {name: plain[name] for name in ("name", "norm")}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How the network is trained."""

    epochs: int = parameter(30, kind="int", meaning="passes over the data", low=1, high=100_000)
    batch_size: int = parameter(64, kind="int", meaning="images a step", low=2, high=1_000_000)
    learning_rate: float = parameter(
        0.05, kind="float", meaning="highest learning rate", low=1e-8, high=100.0
    )
    optimizer: str = parameter("sgd", kind="word", words=("sgd", "adam"), meaning="optimiser")
    momentum: float = parameter(
        0.9, kind="float", meaning="momentum of SGD (Nesterov)", low=0.0, high=0.9999
    )
    weight_decay: float = parameter(
        5e-4, kind="float", meaning="L2 penalty of the optimiser", low=0.0, high=10.0
    )
    schedule: str = parameter(
        "one_cycle", kind="word", words=("one_cycle", "cosine", "constant"),
        meaning="learning rate over the steps",
    )  # fmt: skip
    augmentation: str = parameter(
        "default", kind="word", words=("default", "none", "crop_flip"),
        meaning="random changes of training images; default: the data set's own",
    )  # fmt: skip
    activation: str = parameter(
        "relu", kind="word", words=tuple(ACTIVATIONS), meaning="non-linearity of the network"
    )

    def __post_init__(self) -> None:
        check_parameters(self, "training")
