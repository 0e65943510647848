"""The command line."""

import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from orchestrator import options
from trainables.errors import InputError

app = typer.Typer(
    help="Sweep defenses against attacks on image classifiers and read the trade-off.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()
RUNS = "runs"


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"defense-sweep {importlib.metadata.version('defense-sweep')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Sweep defenses against attacks on image classifiers and read the trade-off."""


@app.command()
def launch(
    space: Annotated[str, typer.Option(help="A space's name, or a .yaml file.")],
    dataset: options.DatasetOption = None,
    data_dir: options.DataDirOption = None,
    image_size: options.ImageSizeOption = None,
    resize: options.ResizeOption = None,
    skip_bad_images: options.SkipBadOption = False,
    model: options.ModelOption = None,
    weights: options.WeightsOption = None,
    trained_on: options.SeenOption = None,
    not_trained_on_these: options.UnseenOption = False,
    trials: Annotated[
        int | None, typer.Option(help="Total number of trials; a larger number extends a run.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed for search and training.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    runs: options.RunsOption = RUNS,
    address: options.AddressOption = None,
    max_concurrent: options.ConcurrentOption = None,
    cpus_per_trial: options.CpusOption = None,
    gpus_per_trial: options.GpusOption = None,
    max_gpu_hours: Annotated[
        float | None, typer.Option(help="Start no new trial after this many GPU hours.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Start no new trial after this time: 90s, 30m, 2h, 1d.")
    ] = None,
    trial_time_limit: Annotated[
        str | None, typer.Option(help="End a trial that works longer: 90s, 30m, 2h, 1d.")
    ] = None,
    trial_memory_gib: Annotated[
        float | None, typer.Option(help="End a trial that takes more memory, in GiB.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="A reproduction's budget: quick or published.")
    ] = None,
    no_audit: Annotated[
        bool, typer.Option("--no-audit", help="Skip the audit; `audit RUN` runs it later.")
    ] = False,
    audit_candidates: Annotated[
        int | None, typer.Option(help="Maximum trials to audit, besides the undefended model.")
    ] = None,
    audit_seeds: Annotated[
        int | None, typer.Option(help="Number of new seeds for each audited trial.")
    ] = None,
    lpips_weights: options.LpipsOption = None,
    download: options.DownloadOption = False,
    accept_changes: options.AcceptOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the trials, ranges and estimated hours.")
    ] = False,
) -> None:
    """Run a sweep, resume it, or extend it, and write a report."""
    options.check_counts(
        ("--trials", trials),
        ("--max-concurrent", max_concurrent),
        ("--image-size", image_size),
        ("--audit-candidates", audit_candidates),
        ("--audit-seeds", audit_seeds),
    )
    options.check_seed(seed)
    from orchestrator.arguments import parse_duration, parse_gpus, parse_resize
    from orchestrator.request import LaunchRequest
    from orchestrator.run.finished import found_finished
    from search_spaces import Overrides

    request = LaunchRequest(
        space=space,
        overrides=Overrides(
            dataset=dataset,
            image_size=image_size,
            resize=None if resize is None else parse_resize(resize),
            skip_bad_images=skip_bad_images or None,
            model=model,
            weights=weights,
            trained_on=options.seen_by_weights(trained_on, not_trained_on_these),
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
        accept_changes=accept_changes,
        audit=not no_audit,
        audit_candidates=audit_candidates,
        audit_seeds=audit_seeds,
    )
    code = found_finished(request, console)
    if code is None:
        from orchestrator.commands.launch import launch as run

        code = run(request, console)
    raise typer.Exit(code)


@app.command()
def trial(
    defense: Annotated[
        list[str], typer.Option(help="NAME[:param=value,..]; several make a stack.")
    ] = ["none"],  # noqa: B006 - typer reads it as the default
    dataset: options.DatasetOption = None,
    model: options.ModelOption = None,
    weights: options.WeightsOption = None,
    trained_on: options.SeenOption = None,
    not_trained_on_these: options.UnseenOption = False,
    threats: Annotated[str | None, typer.Option(help="a,b or clean (default: all).")] = None,
    effort: Annotated[str, typer.Option(help="screen or audit.")] = "screen",
    seed: Annotated[int, typer.Option(help="Random seed for training.")] = 0,
    data_dir: options.DataDirOption = None,
    image_size: options.ImageSizeOption = None,
    resize: options.ResizeOption = None,
    skip_bad_images: options.SkipBadOption = False,
    lpips_weights: options.LpipsOption = None,
    download: options.DownloadOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Run one trial here, without Ray, and print its results."""
    options.check_seed(seed)
    from orchestrator.arguments import parse_resize
    from orchestrator.commands.trial import TrialRequest, print_record, run_single

    record = run_single(
        TrialRequest(
            defenses=tuple(defense),
            dataset=dataset or "digits",
            model=model,
            weights=weights,
            trained_on=options.seen_by_weights(trained_on, not_trained_on_these),
            threats=threats,
            effort=effort,
            seed=seed,
            data_dir=data_dir,
            image_size=image_size,
            resize=parse_resize(resize or "crop"),
            skip_bad_images=skip_bad_images,
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
    run: options.RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every two seconds.")] = False,
) -> None:
    """Print a run's progress and the best results so far."""
    from orchestrator.commands.status import status_lines

    while True:
        if watch and console.is_terminal:
            console.clear()
        console.print(status_lines(run))
        if not watch:
            return
        time.sleep(2)


@app.command()
def audit(
    run: options.RunArgument,
    candidates: Annotated[
        int | None, typer.Option(help="Maximum trials to audit, besides the undefended model.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Number of new seeds for each audited trial.")
    ] = None,
    address: options.AddressOption = None,
    max_concurrent: options.ConcurrentOption = None,
    cpus_per_trial: options.CpusOption = None,
    gpus_per_trial: options.GpusOption = None,
    data_dir: options.DataDirOption = None,
    lpips_weights: options.LpipsOption = None,
) -> None:
    """Retrain a run's best trials with new seeds, run every attack and write a report."""
    options.check_counts(
        ("--candidates", candidates), ("--seeds", seeds), ("--max-concurrent", max_concurrent)
    )
    from orchestrator.arguments import parse_gpus
    from orchestrator.commands.audit import AuditRequest
    from orchestrator.commands.audit import audit as run_audit
    from orchestrator.commands.launch import command_line
    from orchestrator.run.paths import existing_run

    request = AuditRequest(
        run=existing_run(run),
        candidates=candidates,
        seeds=seeds,
        data_dir=data_dir,
        lpips_weights=lpips_weights,
        address=address,
        max_concurrent=max_concurrent,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=None if gpus_per_trial is None else parse_gpus(gpus_per_trial),
    )
    raise typer.Exit(run_audit(request, command_line(), console))


@app.command()
def report(run: options.RunArgument) -> None:
    """Write a run's tables, figures and report again from its records."""
    import results
    from orchestrator.run.paths import report_address

    page = results.write_report(run)
    console.print(f"Report: {report_address(run, page)}", soft_wrap=True)


@app.command()
def select(
    run: options.RunArgument,
    require: Annotated[
        list[str] | None,
        typer.Option(help="METRIC>=NUMBER, or <=, >, <, in quotes; all must hold."),
    ] = None,
    maximize: Annotated[
        list[str] | None,
        typer.Option(help="A metric to maximize; the first one ranks equal picks."),
    ] = None,
    minimize: Annotated[
        list[str] | None, typer.Option(help="A metric to minimize, ranked after those to maximize.")
    ] = None,
    optimistic: Annotated[
        bool, typer.Option("--optimistic", help="Judge by the optimistic end of each interval.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Print picks without a significant difference as one.")
    ] = False,
    export: Annotated[
        str | None, typer.Option(help="Folder to write the first pick (or the suggestion) to.")
    ] = None,
    allow_undefended: options.AllowUndefendedOption = False,
    data_dir: options.DataDirOption = None,
    lpips_weights: options.LpipsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the audited defenses that meet the requirements; exit with 3 if none does."""
    from orchestrator.commands.select import SelectRequest, run_select
    from orchestrator.run.paths import existing_run

    request = SelectRequest(
        run=existing_run(run),
        requirements=tuple(require or ()),
        maximize=tuple(maximize or ()),
        minimize=tuple(minimize or ()),
        optimistic=optimistic,
        allow_undefended=allow_undefended,
        merge=merge,
        as_json=as_json,
        export=export,
        data_dir=data_dir,
        lpips_weights=lpips_weights,
    )
    raise typer.Exit(run_select(request, console))


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="A folder that `select --export` wrote.")],
    data_dir: options.DataDirOption = None,
    points: Annotated[
        int | None, typer.Option(help="Maximum points to attack and certify.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed for attacks and noise (default: random).")
    ] = None,
    effort: Annotated[str, typer.Option(help="screen or audit.")] = "screen",
    own_code: Annotated[
        bool,
        typer.Option("--own-code", help="Let the bundle import the model and defenses it names."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a bundle's hashes and answers, attack it again and compare with its card."""
    options.check_seed(seed)
    from orchestrator.commands.verify import VerifyRequest
    from orchestrator.commands.verify import verify as run

    request = VerifyRequest(
        bundle=Path(bundle),
        data_dir=data_dir,
        points=points,
        seed=seed,
        effort=effort,
        own_code=own_code,
        as_json=as_json,
    )
    raise typer.Exit(run(request, console))


@app.command(name="list")
def list_(
    what: Annotated[
        str, typer.Argument(help="spaces, defenses, attacks, threats, datasets, models or metrics.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table; of metrics, a page.")
    ] = False,
) -> None:
    """List what is available; piped output has one row per line and tabs between columns."""
    if as_json and as_markdown:
        raise InputError("--json and --markdown exclude each other")
    from orchestrator.commands.list import plain_lines, rows_at_once, table

    rows = rows_at_once(what)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    elif as_markdown:
        from orchestrator.commands.markdown import markdown

        sys.stdout.write(markdown(what, rows))
    elif console.is_terminal:
        console.print(table(rows))
    else:
        sys.stdout.write(plain_lines(rows))


@app.command()
def doctor(
    runs: options.RunsOption = RUNS,
    data_dir: options.DataDirOption = None,
) -> None:
    """Check devices, Ray, data sets, LPIPS weights, storage and versions."""
    from orchestrator.commands.doctor import examine

    healthy = True
    for check in examine(runs, data_dir):
        healthy &= check.good or not check.needed
        word = "ok" if check.good else "missing" if not check.needed else "BROKEN"
        console.print(Text(f"{word:8}{check.what}: {check.found}"), soft_wrap=True)
    raise typer.Exit(0 if healthy else 1)
