"""Options that several commands of the command line share."""

from typing import Annotated

import typer

from trainables.declared import NOTHING
from trainables.errors import InputError

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="digits, mnist, cifar10 or folder:PATH.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A model's name, torchvision:NAME, timm:NAME, or package.module:factory.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Weights of --model that are kept as they are: safetensors or a state_dict, file or "
        "URI.",
    ),
]
UnseenOption = Annotated[
    bool,
    typer.Option("--not-trained-on-these", help="The weights were trained on none of the images."),
]
SeenOption = Annotated[
    str | None,
    typer.Option(
        "--trained-on", help="What the weights were trained on: a folder, or a list of files."
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option(help="Folder or URI with MNIST and CIFAR-10 (default: $DEFENSE_SWEEP_DATA)."),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(help="Side in pixels to resize a folder's images to.")
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        "--resize", help="How images become square: crop (the short side fits) or squash."
    ),
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad-images", help="Leave out images that cannot be read.")
]
AcceptOption = Annotated[
    bool,
    typer.Option(
        "--accept-changes", help="Start a run's trials again where its images or code changed."
    ),
]
LpipsOption = Annotated[
    str | None, typer.Option(help="File or URI of torchvision's AlexNet weights, for LPIPS.")
]
AllowUndefendedOption = Annotated[
    bool,
    typer.Option("--allow-undefended", help="Let the undefended model be picked like a defense."),
]
RunsOption = Annotated[str, typer.Option(help="Where runs are stored: a folder, s3:// or gs://.")]
RunArgument = Annotated[str, typer.Argument(help="A run's folder or URI.")]
AddressOption = Annotated[
    str | None, typer.Option(help="A Ray cluster to join: auto or HOST:PORT.")
]
ConcurrentOption = Annotated[int | None, typer.Option(help="Maximum concurrent trials.")]
CpusOption = Annotated[float | None, typer.Option(help="CPUs per trial.")]
GpusOption = Annotated[
    str | None,
    typer.Option(help="GPUs per trial: a share of one, a whole number, or auto (measured)."),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch MNIST or CIFAR-10 into the data folder first.")
]


def check_counts(*counts: tuple[str, int | None]) -> None:
    """Raise InputError for an option's number that is below 1."""
    for option, value in counts:
        if value is not None and value < 1:
            raise InputError(f"{option} must be at least 1, but got {value}")


def check_seed(seed: int | None) -> None:
    """Raise InputError for a negative seed."""
    if seed is not None and seed < 0:
        raise InputError(f"--seed must be at least 0, but got {seed}")


def seen_by_weights(trained_on: str | None, nothing: bool) -> str | None:
    """Return what given weights saw, as specs hold it; None where nothing was said.

    Raises InputError for both at once.
    """
    if nothing and trained_on is not None:
        raise InputError("--trained-on and --not-trained-on-these exclude each other")
    return NOTHING if nothing else trained_on
