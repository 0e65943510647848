"""One trial, in stages: a spec in, a record out. Imports no Ray."""

import json
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.datasets import load_dataset
from trainables.deployed.predictor import Predictor
from trainables.device import (
    CPU,
    device_name,
    full_precision,
    given_device,
    indexed,
    precisions,
)
from trainables.errors import DeviceError, InputError, StorageError
from trainables.metrics.perceptual import find_weights
from trainables.models.own_model import answers_randomly
from trainables.records.record import TrialRecord, metric_from_plain, metric_to_plain
from trainables.records.value import MetricValue, Missing
from trainables.records.versions import installed_versions
from trainables.storage.artefacts import Artefact, ArtefactStore
from trainables.threats import THREATS, Findings, Threat
from trainables.threats import clean as clean_stage
from trainables.training import loop
from trainables.training.trained import Trained, weights_digest
from trainables.trial.context import TrialContext, build_context
from trainables.trial.deployment_spec import DeploymentSpec
from trainables.trial.gpu import GpuUse, gpu_use
from trainables.trial.limits import NO_LIMITS, TrialLimits, enforced
from trainables.trial.spec import TrialSpec
from trainables.trial.usage import UsageLog

logger = logging.getLogger(__name__)

MISSING = "missing"
"""In a record's notes: threat -> why none of its metrics has a value."""
_RANDOM = "its answers are random in eval mode: each stage is seeded"
_GIVEN = "its weights were given and are kept as they are: nothing was trained"
_PACKAGES = ("defense-sweep", "torch", "torchvision", "numpy", "scikit-learn")


def stage_versions() -> dict[str, int]:
    """List the version of every stage that makes results."""
    threats = {name: threat.VERSION for name, threat in THREATS.items()}
    return {"training": loop.VERSION, "clean": clean_stage.VERSION, **threats}


def prepare_trial(
    spec: DeploymentSpec,
    store: ArtefactStore,
    *,
    data_dir: Path | str | None = None,
    lpips_weights: Path | str | None = None,
    device: torch.device | None = None,
) -> TrialContext:
    """Load the data and check spec, data and model against each other.

    Raises InputError where they do not fit.
    """
    device = indexed(device or given_device(None))
    dataset = load_dataset(
        spec.data.name,
        data_dir=data_dir,
        image_size=spec.data.image_size,
        resize=spec.data.resize,
        skip_bad_images=spec.data.skip_bad_images,
        trained_on=spec.data.trained_on,
        device=device,
    )
    return build_context(spec, dataset, store, device, find_weights(lpips_weights))


def run_trial(
    spec: TrialSpec,
    store: ArtefactStore,
    *,
    sampled: Mapping[str, Any] | None = None,
    data_dir: Path | str | None = None,
    lpips_weights: Path | str | None = None,
    device: torch.device | None = None,
    threads: int = 1,
    gpus: float | None = None,
    limits: TrialLimits = NO_LIMITS,
    on_breach: Callable[[TrialRecord], object] = lambda record: None,
    on_stage: Callable[[str], object] = lambda stage: None,
) -> TrialRecord:
    """Run the stages of a trial and record what came out.

    A threat that the trial's rows do not allow (InputError while it is measured) has its metrics
    missing with the reason, which the notes repeat; the rest is measured.

    `gpus` is what the trial was given: with 0 it runs on the CPU, with less than 1 it is held to
    that share of the GPU's memory; None: it takes the GPU that it sees. torch runs with `threads`
    threads, as it must for the results of two runs to be the same. InputError passes through, since
    no other trial of the sort can succeed, and StorageError, which is not the trial's; any other
    failure is written into the record. Where the trial breaks one of its limits, `on_breach` is
    given the record of what it had found, and the process ends. `on_stage` receives the name of
    each stage that begins.
    """
    torch.set_num_threads(threads)
    found = _Found(started=_now(), clock=_Clock(on_stage))
    error: str | None = None
    use = GpuUse(gpus)
    try:
        device = indexed(device or given_device(gpus))
    except DeviceError as failure:
        return _record(spec, sampled or {}, found, str(failure), _hardware(CPU, threads, use))

    def record(error: str | None) -> TrialRecord:
        return _record(spec, sampled or {}, found, error, _hardware(device, threads, use))

    def broken(reason: str) -> None:
        on_breach(record(reason))

    try:
        with (
            enforced(limits, broken, lambda: store.waited_seconds),
            gpu_use(device, use),
            full_precision(device),
        ):
            with found.clock.stage("data"):
                ctx = prepare_trial(
                    spec, store, data_dir=data_dir, lpips_weights=lpips_weights, device=device
                )
            if ctx.dataset.notes:
                found.notes["data"] = list(ctx.dataset.notes)
            _run_stages(spec, ctx, found)
    except (InputError, StorageError):
        raise
    except Exception as failure:  # the trial's boundary: a failed trial never ends a sweep
        logger.warning("trial %s failed: %s", spec.trial, failure)
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    return record(error)


def failed_record(spec: TrialSpec, sampled: Mapping[str, Any], error: str) -> TrialRecord:
    """Return the record of a trial that could not even begin."""
    return _record(spec, sampled, _Found(started=_now()), error, {})


@dataclass(slots=True)
class _Found:
    """What a trial has found so far, which is kept if a later stage fails."""

    started: str
    clock: "_Clock" = field(default_factory=lambda: _Clock())
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)

    def take(self, stage: str, findings: Findings) -> None:
        """Keep what a stage found."""
        self.metrics |= findings.metrics
        self.notes[stage] = findings.notes

    def leave_out(self, threat: Threat, reason: str) -> None:
        """Keep why a threat was not measured, as the value of each of its metrics."""
        self.metrics |= dict.fromkeys(threat.metric_names(), Missing(reason))
        self.notes.setdefault(MISSING, {})[threat.name] = reason


def _record(
    spec: TrialSpec,
    sampled: Mapping[str, Any],
    found: _Found,
    error: str | None,
    hardware: dict[str, Any],
) -> TrialRecord:
    # Copies: where a limit was broken, the trial still goes on in another thread.
    return TrialRecord(
        trial=spec.trial,
        spec=spec.canonical(),
        sampled=dict(sampled),
        status="completed" if error is None else "failed",
        error=error,
        metrics=dict(found.metrics),
        curves=dict(found.curves),
        timings=dict(found.clock.seconds),
        artefacts=dict(found.used),
        notes=dict(found.notes),
        hardware=hardware,
        versions=installed_versions(_PACKAGES),
        stage_versions=stage_versions(),
        started=found.started,
        finished=_now(),
    )


def _run_stages(spec: TrialSpec, ctx: TrialContext, found: _Found) -> None:
    found.used = ctx.log.used
    with found.clock.stage("training"):
        trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    found.curves = dict(trained.curves)
    found.notes["training"] = {"weights_sha256": trained.weights_sha256}
    with found.clock.stage("deployment"):
        predictor = ctx.deploy(spec.stack, trained.model)
    said = [_RANDOM] if _answers_randomly(trained.model, ctx) else []
    if spec.model.weights:
        said.append(_GIVEN)
    if said:
        found.notes["model"] = said
    with found.clock.stage("clean"), ctx.seeded("clean"):
        clean = _finite(
            "clean",
            clean_stage.measure_clean(predictor, trained.members, ctx, curves=trained.curves),
        )
    found.take("clean", clean)
    outcomes = dict(clean.outcomes)
    for threat in spec.threats:
        try:
            with found.clock.stage(threat.name):
                findings = _measured(threat, ctx, predictor)
        except InputError as refusal:
            # What the spec asks for was checked before anything was trained: these rows lack it,
            # and the other threats do not ask for it.
            logger.warning("trial %s: %s is not measured: %s", spec.trial, threat.name, refusal)
            found.leave_out(threat, str(refusal))
            continue
        found.take(threat.name, findings)
        outcomes |= findings.outcomes
    if spec.model.weights:
        _check_kept(trained)
    if spec.effort == "audit":
        found.notes["outcomes"] = _marks(outcomes)


def _answers_randomly(model: nn.Module, ctx: TrialContext) -> bool:
    """Return whether a user's network draws at random in eval mode; ours do not."""
    if ":" not in ctx.spec.model.name:
        return False
    return answers_randomly(model, ctx.held_out.images(slice(0, 2)))


def _check_kept(trained: Trained) -> None:
    """Raise RuntimeError where given weights are no longer what they were: no figure would be
    theirs.
    """
    if weights_digest(trained.model.state_dict()) != trained.weights_sha256:
        raise RuntimeError("a defense or an attack changed the weights that were given")


def _measured(threat: Threat, ctx: TrialContext, predictor: Predictor) -> Findings:
    """Measure a threat, or take the evaluation that an equal deployment had before."""
    if not threat.repeatable:
        return _finite(threat.name, threat.measure(predictor, ctx))
    identity = {
        "version": threat.VERSION,
        "deployment": ctx.deployment,
        "training": loop.VERSION,
        "threat": threat.canonical(),
        # Where the weights turn up later, what was missing is measured.
        "lpips": str(ctx.lpips_weights),
    }

    def measure() -> Artefact:
        own = ctx.noting_in(UsageLog(phases=ctx.log.phases))
        found = _finite(threat.name, threat.measure(predictor, own))
        plain = {name: metric_to_plain(value) for name, value in found.metrics.items()}
        return Artefact(
            {name: marks.cpu() for name, marks in found.outcomes.items()},
            {"metrics": plain, "notes": found.notes, "used": own.log.used},
        )

    artefact = ctx.cached(f"evaluation_{threat.name}", identity, measure)
    values = artefact.values
    for role, key in values["used"].items():
        ctx.log.note(role, key)
    restored = {name: metric_from_plain(row) for name, row in values["metrics"].items()}
    return Findings(metrics=restored, notes=values["notes"], outcomes=artefact.tensors)


def _marks(outcomes: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write outcomes as strings, a character for each fixed point in order: 1 for a good one.

    Points of one number are the same ones, whoever is measured, so that two models can be compared
    point by point. A slow model is attacked on fewer points.
    """
    strings = {
        name: "".join("1" if mark else "0" for mark in marks.tolist())
        for name, marks in outcomes.items()
    }
    return {"points": max(map(len, strings.values())), **strings}


def _finite(stage: str, findings: Findings) -> Findings:
    """Return the findings; raise ValueError, naming the stage, where its notes hold NaN or
    infinity.

    No record could be written with them; metrics are finite by themselves.
    """
    try:
        json.dumps(findings.notes, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"the notes of {stage} hold a number that is not finite") from error
    return findings


class _Clock:
    """Seconds by stage."""

    def __init__(self, on_stage: Callable[[str], object] = lambda stage: None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._on_stage(name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - started


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _hardware(device: torch.device, threads: int, use: GpuUse) -> dict[str, Any]:
    return {
        "device": device_name(device),
        "machine": platform.machine(),
        "threads": threads,
        **precisions(device),
        **use.plain(),
    }
