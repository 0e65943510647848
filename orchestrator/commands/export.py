"""`select --export`: a chosen stack retrained on the whole clean data, measured, and bundled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.run.inputs import found_inputs, refuse_changes
from orchestrator.run.paths import RunPaths
from results.audit.audit import Audited
from results.bundle.card import Measurements, model_card
from results.bundle.contents import Deployed
from results.bundle.members import check_absent
from results.bundle.writing import write
from results.records.run import Run
from trainables.datasets import dataset_entry
from trainables.deployed.noting import deploy_noting
from trainables.errors import InputError, TrialFailedError
from trainables.records.record import TrialRecord
from trainables.storage.artefacts import ArtefactStore
from trainables.storage.identity import seed_from
from trainables.threats import Threat, build_threat
from trainables.threats.evasion.evasion import HEADLINE
from trainables.trial.context import TrialContext
from trainables.trial.spec import TrialSpec, spec_from_canonical
from trainables.trial.stages import prepare_trial, run_trial

_SEEDS = 2**31
_WORDS: Mapping[str, str] = {
    "data": "loading the data",
    "training": "training on the whole clean training data",
    "deployment": "deploying, which fits what is to be fitted",
    "clean": "measuring unattacked images",
    "backdoor": "training a poisoned twin, for the backdoor figures alone",
    "cost": "timing predictions",
}


def export(
    paths: RunPaths,
    run: Run,
    chosen: Audited,
    out: Path,
    console: Console,
    *,
    data_dir: str | None = None,
    lpips_weights: str | None = None,
) -> None:
    """Write the bundle of a chosen stack, trained and measured here, without Ray.

    The model trains on all clean rows but calibration and test, from a seed that nothing else of
    the run had, and is measured at audit effort on the test pool. Trainings go to the run's store,
    so that an export that was cut off goes on where it was. Raises InputError for what cannot be
    exported, BundleError where `out` is not empty, TrialFailedError or TrainingDivergedError where
    measuring or training fails.
    """
    check_absent(out)
    spec = _spec(run, chosen)
    console.print(Text(f"Exporting {chosen.label} to {out} (seed {spec.seed})"), soft_wrap=True)
    store = ArtefactStore(paths.artefacts)
    ctx = prepare_trial(spec, store, data_dir=data_dir)
    refuse_changes(run.manifest, found_inputs([ctx.dataset], [ctx]), paths.shown)
    deployed, rows = _deployed(spec, ctx, console)
    record = run_trial(
        spec,
        store,
        data_dir=data_dir,
        lpips_weights=lpips_weights,
        on_stage=lambda stage: _say(console, stage),
    )
    if record.status != "completed":
        raise TrialFailedError(f"the export of {chosen.label} failed: {record.error}")
    measured = _measurements(spec, record, ctx, rows)
    console.print("  writing the bundle and reading it back")
    write(
        out,
        deployed,
        ctx.pools.test,
        lambda facts: model_card(run.name, chosen, measured, ctx.dataset, facts),
    )
    console.print(Text(f"Bundle: {out}"), soft_wrap=True)
    console.print(Text(f"Check it: python -m orchestrator verify {out}"), soft_wrap=True)


def _deployed(spec: TrialSpec, ctx: TrialContext, console: Console) -> tuple[Deployed, int]:
    """Train and deploy before anything is measured: what cannot be bundled is said at once."""
    _say(console, "training")
    trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    # The weights are cloned: a predictor holds the same tensors.
    weights = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    _say(console, "deployment")
    _, fitted = deploy_noting(ctx, spec.stack, trained.model)
    deployed = Deployed(spec=spec, dataset=ctx.dataset, weights=weights, fitted=fitted)
    return deployed, len(trained.members)


def _spec(run: Run, chosen: Audited) -> TrialSpec:
    """Return the spec of the model to export: what was audited, on the deployment pools."""
    record = next(iter(chosen.records), chosen.search)
    if record is None:
        raise InputError(f"{chosen.label} has no usable record to export from; audit the run again")
    found = spec_from_canonical({**record.spec, "threats": []})
    if found.data.pools == "published":
        raise InputError(
            f"{chosen.label} was trained on the published pools, which reproduce a paper and have "
            "no calibration; export from a sweep with pools: search"
        )
    if found.model.weights:
        raise InputError(
            f"{chosen.label} is put on given weights, of which no bundle is written yet; deploy "
            "the checkpoint itself"
        )
    data = replace(found.data, pools="deployment", train_images=None, measured_images=None)
    return replace(
        found,
        data=data,
        threats=_threats(record.spec, found, rejects=record.rejects),
        effort="audit",
        seed=_fresh_seed(run, record.trial),
    )


def _threats(plain: Mapping[str, Any], spec: TrialSpec, *, rejects: bool) -> tuple[Threat, ...]:
    """Return the threats that the exported model is measured against, as the audit had them.

    Membership and inversion are not measured again: what they take is a training of many models.
    Of evasion only the headline is, AutoAttack with it: the audit has curves and signs of masking.
    """
    radius = dataset_entry(spec.data.name).radius
    asked = {str(row["name"]): dict(row) for row in plain.get("threats", [])}
    certified = any(defense.guarantee == "certified" for defense in spec.stack)
    asked["evasion"] = {**asked.get("evasion", {}), "extent": HEADLINE}
    wanted = {
        "evasion": True,
        "certification": certified,
        "detection": rejects,
        "backdoor": "backdoor" in asked,
        "cost": True,
    }
    return tuple(
        build_threat(
            name,
            {key: value for key, value in asked.get(name, {}).items() if key != "name"},
            radius=radius,
        )
        for name, needed in wanted.items()
        if needed
    )


def _fresh_seed(run: Run, trial: str) -> int:
    """Declare a seed that no trial of the run or of its audit had: of run and trial alone."""
    records = [*run.records, *(run.audit.records if run.audit else ())]
    used = {record.spec["seed"] for record in records}
    seed = seed_from("export", run.name, trial) % _SEEDS
    while seed in used:
        seed = (seed + 1) % _SEEDS
    return seed


def _measurements(
    spec: TrialSpec, record: TrialRecord, ctx: TrialContext, rows: int
) -> Measurements:
    attacks = record.notes.get("evasion", {}).get("settings", {})
    return Measurements(
        spec=spec,
        metrics=record.metrics,
        attacks=tuple(attacks),
        rows=rows,
        training_rows=len(ctx.pools.train),
        measured_rows=len(ctx.pools.test),
        hardware=record.hardware,
    )


def _say(console: Console, stage: str) -> None:
    console.print(Text(f"  {_WORDS.get(stage, f'attacking: {stage}')}"), soft_wrap=True)
