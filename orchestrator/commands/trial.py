"""`trial`: one trial in this process, without Ray."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.arguments import parse_named, parse_stack, parse_threats
from trainables.datasets import Resize, absolute_name, dataset_entry, load_dataset
from trainables.declared import NOTHING
from trainables.errors import InputError
from trainables.models.given.checkpoint import given_place, sha256_of
from trainables.parameters import build
from trainables.records.record import TrialRecord
from trainables.records.value import Missing
from trainables.storage.artefacts import ArtefactStore
from trainables.storage.folders import absolute_place, redacted
from trainables.trial.settings import EFFORTS, DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec
from trainables.trial.stages import run_trial


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """What `trial` was asked for."""

    defenses: tuple[str, ...]
    dataset: str
    model: str | None
    weights: str | None
    trained_on: str | None
    threats: str | None
    effort: str
    seed: int
    data_dir: str | None
    image_size: int | None
    resize: Resize
    skip_bad_images: bool
    lpips_weights: str | None
    download: bool


def run_single(request: TrialRequest) -> TrialRecord:
    """Run the trial with a store of its own that is thrown away."""
    if request.download:
        load_dataset(
            request.dataset,
            data_dir=request.data_dir,
            image_size=request.image_size,
            device=torch.device("cpu"),
            download=True,
        )
    with tempfile.TemporaryDirectory(prefix="defense-sweep-") as folder:
        return run_trial(
            spec_of(request),
            ArtefactStore(Path(folder)),
            data_dir=request.data_dir,
            lpips_weights=request.lpips_weights,
        )


def spec_of(request: TrialRequest) -> TrialSpec:
    """Build the spec that a request stands for, with the data set's own training."""
    effort = next((known for known in EFFORTS if known == request.effort), None)
    if effort is None:
        raise InputError(f"--effort {request.effort!r}: known: {', '.join(EFFORTS)}")
    entry = dataset_entry(request.dataset)
    model, raw_model = parse_named(request.model or entry.default_model)
    if request.weights is not None and request.model is None:
        raise InputError(f"--weights {redacted(request.weights)}: name their network with --model")
    weights = "" if request.weights is None else given_place(request.weights)
    named = build(ModelSpec, {"name": model, **raw_model}, owner="model", radius=entry.radius)
    return TrialSpec(
        data=DataSpec(
            name=absolute_name(request.dataset),
            image_size=request.image_size,
            resize=request.resize,
            skip_bad_images=request.skip_bad_images,
            trained_on=_seen(request.trained_on),
        ),
        model=replace(named, weights=weights, weights_sha256=sha256_of(weights) if weights else ""),
        training=build(TrainingSpec, entry.training, owner="training", radius=entry.radius),
        stack=parse_stack(request.defenses, entry.radius),
        threats=parse_threats(request.threats, entry.radius),
        effort=effort,
        seed=request.seed,
    )


def _seen(trained_on: str | None) -> str:
    return trained_on if trained_on == NOTHING else absolute_place(trained_on) or ""


def print_record(record: TrialRecord, console: Console) -> None:
    """Print a record's metrics with their intervals, or why it failed."""
    if record.status == "failed":
        console.print(Text(f"failed: {record.error}", style="red"), soft_wrap=True)
    table = Table("metric", "value", "95 % interval", "n", box=None, pad_edge=False)
    missing = []
    for name, value in record.metrics.items():
        if isinstance(value, Missing):
            missing.append(f"{name}: missing, {value.reason}")
        else:
            interval = f"{value.low:.4g} - {value.high:.4g}"
            table.add_row(name, f"{value.value:.4g}", interval, str(value.n))
    console.print(table)
    for line in missing:
        console.print(Text(line, style="dim"), soft_wrap=True)
    for note in record.notes.get("model", ()):
        console.print(Text(f"model: {note}", style="dim"), soft_wrap=True)
    for note in record.notes.get("data", ()):
        console.print(Text(f"data: {note}", style="dim"), soft_wrap=True)
    timings = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in record.timings.items())
    console.print(Text(f"trial {record.trial}: {timings}", style="dim"), soft_wrap=True)
