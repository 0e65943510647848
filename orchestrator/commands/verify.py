"""`verify`: a bundle's hashes, its reference inputs, and a fresh attack compared with its card."""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.bundle import Bundle, load
from results.bundle.comparison import Row, compare, falls_short
from results.bundle.reference import TOLERANCE, differences
from results.records.values import value_text
from trainables.datasets import Dataset, load_dataset
from trainables.datasets.registry import FOLDER_PREFIX
from trainables.device import given_device
from trainables.errors import InputError
from trainables.metrics import intervals, metric
from trainables.records.value import Measured, MetricValue
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import Threat
from trainables.threats.certification import Certification
from trainables.threats.detection.detection import Detection
from trainables.threats.evasion.evasion import HEADLINE, Evasion
from trainables.trial.context import TrialContext, build_context
from trainables.trial.settings import EFFORTS

_SEEDS = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What `verify` was asked for."""

    bundle: Path
    data_dir: str | None = None
    points: int | None = None
    """Maximum points to attack and certify; None: as many as the effort has."""
    seed: int | None = None
    """Of attacks and noise; None: drawn at random and printed."""
    effort: str = "screen"
    own_code: bool = False
    as_json: bool = False


def verify(request: VerifyRequest, console: Console) -> int:
    """Look at hashes, ask the reference inputs, attack again: 0 it holds, 1 it falls short.

    Raises BundleError for a bundle that was changed or cut off, InputError where its data set is
    not there or is another.
    """
    _check(request)
    bundle = load(request.bundle, own_code=request.own_code)
    seed = secrets.randbelow(_SEEDS) if request.seed is None else request.seed
    gaps = differences(bundle.predictor, bundle.reference)
    agrees = max(gaps.values()) <= TOLERANCE
    rows: tuple[Row, ...] = ()
    if agrees:
        # The reference was made on a CPU; attacks run on what there is.
        device = given_device(None)
        if device.type != "cpu":
            bundle = load(request.bundle, own_code=request.own_code, device=device)
        rows = _attacked_again(bundle, request, seed)
    good = agrees and not falls_short(rows)
    if request.as_json:
        sys.stdout.write(json.dumps(_plain(request, seed, gaps, rows, good), indent=1) + "\n")
    else:
        _print(request, seed, gaps, agrees, rows, console)
    return 0 if good else 1


def _check(request: VerifyRequest) -> None:
    if request.points is not None and request.points < 2:
        raise InputError(f"--points must be at least 2, but got {request.points}")
    if request.effort not in EFFORTS:
        raise InputError(f"--effort {request.effort!r}: known: {', '.join(EFFORTS)}")


def _attacked_again(bundle: Bundle, request: VerifyRequest, seed: int) -> tuple[Row, ...]:
    dataset = _dataset(bundle, request.data_dir)
    threats: list[Threat] = [Evasion(points=request.points, extent=HEADLINE)]
    if len(bundle.reference.radii) > 0:
        threats.append(Certification(points=request.points))
    if bundle.predictor.rejects:
        threats.append(Detection(extent=HEADLINE))
    effort = next(known for known in EFFORTS if known == request.effort)
    spec = replace(bundle.spec, effort=effort, seed=seed)
    with tempfile.TemporaryDirectory(prefix="defense-sweep-") as folder:
        ctx = build_context(spec, dataset, ArtefactStore(Path(folder)), bundle.device)
        found = _measured(bundle, threats, ctx)
    worse = {name: metric(name).direction == "minimize" for name in found}
    return compare(bundle.card, found, worse)


def _measured(bundle: Bundle, threats: Iterable[Threat], ctx: TrialContext) -> dict[str, Measured]:
    pool = ctx.held_out
    right = ctx.answers(bundle.predictor, pool).label == pool.labels
    metrics: dict[str, MetricValue] = {
        "clean_accuracy": intervals.proportion(int(right.sum()), len(pool))
    }
    for threat in threats:
        metrics |= threat.measure(bundle.predictor, ctx).metrics
    return {name: value for name, value in metrics.items() if isinstance(value, Measured)}


def _dataset(bundle: Bundle, data_dir: str | None) -> Dataset:
    """Load the bundle's data set; of a user's own folder, `data_dir` says where it lies here."""
    name = bundle.spec.data.name
    if name.startswith(FOLDER_PREFIX) and data_dir is not None:
        name, data_dir = f"{FOLDER_PREFIX}{data_dir}", None
    data = bundle.spec.data
    found = load_dataset(
        name,
        data_dir=data_dir,
        image_size=data.image_size,
        resize=data.resize,
        skip_bad_images=data.skip_bad_images,
        device=bundle.device,
    )
    if found.fingerprint != bundle.dataset.fingerprint:
        raise InputError(
            f"{name}: not the images that the bundle was made from and measured on; set their "
            "folder with --data-dir"
        )
    return found


def _plain(
    request: VerifyRequest, seed: int, gaps: dict[str, float], rows: tuple[Row, ...], good: bool
) -> dict[str, Any]:
    return {
        "bundle": str(request.bundle),
        "verified": good,
        "seed": seed,
        "effort": request.effort,
        # Another shape is infinitely far, which JSON has no number for.
        "reference": {n: gap if gap < float("inf") else None for n, gap in gaps.items()},
        "tolerance": TOLERANCE,
        "rows": [row.plain() for row in rows],
    }


def _print(
    request: VerifyRequest,
    seed: int,
    gaps: dict[str, float],
    agrees: bool,
    rows: tuple[Row, ...],
    console: Console,
) -> None:
    console.print("hashes: every member is as it was exported")
    if not agrees:
        worst = ", ".join(f"{n} by {gap:.3g}" for n, gap in gaps.items() if gap > TOLERANCE)
        console.print(
            Text(
                f"reference inputs: they are answered otherwise ({worst}; {TOLERANCE:g} is "
                "allowed): this is not the model that was exported",
                style="red",
            ),
            soft_wrap=True,
        )
        return
    console.print(f"reference inputs: answered as at the export, to {TOLERANCE:g}")
    table = Table("metric", "card", "n", "now", "n", "verdict", box=None, pad_edge=False)
    for row in rows:
        card, n = ("", "") if row.card is None else (value_text(row.card), str(row.card.n))
        now = Text(value_text(row.now))  # a Text, since brackets are markup elsewhere
        table.add_row(row.metric, Text(card), n, now, str(row.now.n), row.verdict)
    console.print(table)
    good = not falls_short(rows)
    said = "holds what its card says" if good else "falls short of its card"
    console.print(
        Text(f"{request.bundle} {said} (attacked at {request.effort} effort, seed {seed})"),
        soft_wrap=True,
    )
