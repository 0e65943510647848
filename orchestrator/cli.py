"""The command line."""

import json
import logging
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from search_spaces import Overrides
from trainables.errors import InputError, StorageError

app = typer.Typer(
    help="Sweep defenses against attacks on image classifiers and read the trade-off.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
RUNS = "runs"

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="digits, mnist, cifar10 or folder:PATH.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A model's name, or package.module:factory.")
]
DataDirOption = Annotated[
    str | None,
    typer.Option(help="Folder or URI of MNIST and CIFAR-10 (default: $DEFENSE_SWEEP_DATA)."),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(help="Side in pixels that a folder's images are resized to.")
]
LpipsOption = Annotated[
    str | None, typer.Option(help="File or URI of torchvision's AlexNet weights, for LPIPS.")
]
RunsOption = Annotated[str, typer.Option(help="Where runs are kept: a folder, s3:// or gs://.")]
RunArgument = Annotated[str, typer.Argument(help="A run's folder or URI.")]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch MNIST or CIFAR-10 into the data folder first.")
]


@app.command()
def launch(
    space: Annotated[str, typer.Option(help="A space's name, or a .yaml file.")],
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    model: ModelOption = None,
    trials: Annotated[int | None, typer.Option(help="Trials in all; more extends a run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and the trainings.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    runs: RunsOption = RUNS,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join: auto or HOST:PORT.")
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Most trials at once.")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="CPUs of each trial.")] = None,
    gpus_per_trial: Annotated[
        str | None,
        typer.Option(help="GPUs of each trial: a share of one, whole ones, or auto: measured."),
    ] = None,
    max_gpu_hours: Annotated[
        float | None, typer.Option(help="No new trial once the run has taken so many GPU hours.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="No new trial after this: 90s, 30m, 2h, 1d.")
    ] = None,
    trial_time_limit: Annotated[
        str | None, typer.Option(help="A trial that works longer is ended: 90s, 30m, 2h, 1d.")
    ] = None,
    trial_memory_gib: Annotated[
        float | None, typer.Option(help="A trial that takes more memory, in GiB, is ended.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="A reproduction's budget: quick or published.")
    ] = None,
    lpips_weights: LpipsOption = None,
    download: DownloadOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print trials, ranges and estimated hours.")
    ] = False,
) -> None:
    """Run a sweep, resume it, or extend it; ends in a report."""
    for option, value in (
        ("--trials", trials),
        ("--max-concurrent", max_concurrent),
        ("--image-size", image_size),
    ):
        if value is not None and value < 1:
            raise InputError(f"{option} must be at least 1, but got {value}")
    _check_seed(seed)
    from orchestrator.arguments import parse_duration, parse_gpus
    from orchestrator.launch import LaunchRequest
    from orchestrator.launch import launch as run

    request = LaunchRequest(
        space=space,
        overrides=Overrides(
            dataset=dataset,
            image_size=image_size,
            model=model,
            trials=trials,
            seed=seed,
            budget=budget,
        ),
        runs=runs,
        name=name,
        data_dir=data_dir,
        lpips_weights=lpips_weights,
        address=address,
        max_concurrent=max_concurrent,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=None if gpus_per_trial is None else parse_gpus(gpus_per_trial),
        max_gpu_hours=max_gpu_hours,
        time_budget=time_budget,
        trial_time_limit=None
        if trial_time_limit is None
        else parse_duration(trial_time_limit, "--trial-time-limit"),
        trial_memory_gib=trial_memory_gib,
        dry_run=dry_run,
        download=download,
    )
    raise typer.Exit(run(request, console))


@app.command()
def trial(
    defense: Annotated[
        list[str], typer.Option(help="NAME[:param=value,..]; several make a stack.")
    ] = ["none"],  # noqa: B006 - typer reads it as the default
    dataset: DatasetOption = None,
    model: ModelOption = None,
    threats: Annotated[str | None, typer.Option(help="a,b or clean (default: all).")] = None,
    effort: Annotated[str, typer.Option(help="screen or audit.")] = "screen",
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    lpips_weights: LpipsOption = None,
    download: DownloadOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Run one trial here, without Ray, and print what came out."""
    _check_seed(seed)
    from orchestrator.single import TrialRequest, print_record, run_single

    record = run_single(
        TrialRequest(
            defenses=tuple(defense),
            dataset=dataset or "digits",
            model=model,
            threats=threats,
            effort=effort,
            seed=seed,
            data_dir=data_dir,
            image_size=image_size,
            lpips_weights=lpips_weights,
            download=download,
        )
    )
    if as_json:
        sys.stdout.write(record.to_json() + "\n")
    else:
        print_record(record, console)
    raise typer.Exit(1 if record.status == "failed" else 0)


@app.command()
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds.")] = False,
) -> None:
    """Print how far a run is and the best so far."""
    from orchestrator.watch import status_lines

    while True:
        if watch and console.is_terminal:
            console.clear()
        console.print(status_lines(run))
        if not watch:
            return
        time.sleep(2)


@app.command()
def report(run: RunArgument) -> None:
    """Write a run's tables, figures and report anew from its records."""
    import results
    from orchestrator.paths import report_address

    page = results.write_report(run)
    console.print(f"Report: {report_address(run, page)}", soft_wrap=True)


@app.command(name="list")
def list_(
    what: Annotated[
        str, typer.Argument(help="spaces, defenses, attacks, threats, datasets, models or metrics.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what there is."""
    from orchestrator.listing import LISTS

    if what not in LISTS:
        raise InputError(f"unknown list {what!r}; known: {', '.join(LISTS)}")
    rows = LISTS[what]()
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    table = Table("name", "meaning", "parameters", "source", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            escape(row["name"]),
            escape(row["meaning"]),
            escape(", ".join(row["parameters"])),
            escape(row["source"]),
        )
    console.print(table)


@app.command()
def doctor(
    runs: RunsOption = RUNS,
    data_dir: DataDirOption = None,
) -> None:
    """Look at devices, Ray, data sets, LPIPS weights, storage and versions."""
    from orchestrator.doctor import examine

    healthy = True
    for check in examine(runs, data_dir):
        healthy &= check.good or not check.needed
        word = "ok" if check.good else "missing" if not check.needed else "BROKEN"
        console.print(Text(f"{word:8}{check.what}: {check.found}"), soft_wrap=True)
    raise typer.Exit(0 if healthy else 1)


def main() -> int:
    """Run the command line: 0 done, 1 failed, 2 wrong usage or input."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from results import ResultsError

    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
    except (InputError, ResultsError) as error:
        return _usage(str(error))
    except StorageError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}; run the same command again\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 1
    except Exception as error:
        # Typer's own complaints have a message of one line; anything else is a fault of ours.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        return _usage(message())
    return int(code or 0)


def _usage(message: str) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"error: {line}\n")
    return 2


def _check_seed(seed: int | None) -> None:
    if seed is not None and seed < 0:
        raise InputError(f"--seed must be at least 0, but got {seed}")
