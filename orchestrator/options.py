"""Options that several commands of the command line share."""

from typing import Annotated

import typer

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="digits, mnist, cifar10 or folder:PATH.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A model's name, or package.module:factory.")
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
