"""What a model card says, as plain values: `card.json`, from which the Markdown is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from results.audit.audit import Audited
from results.bundle.writing import Facts
from results.records.record import stack_label
from trainables.datasets import Dataset
from trainables.defenses import Defense, Stack
from trainables.metrics import metric
from trainables.records.value import Measured, MetricValue
from trainables.threats import Threat
from trainables.trial.spec import TrialSpec

FORMAT = 1
_COST = "cost"
"""What no attacker does."""
_UNCOVERED = (
    "What is not named here was not measured: other norms and larger balls than those above, "
    "changes in the physical world, other distributions of images, theft of the model, inference "
    "of attributes."
)
_TWIN = (
    "Backdoor figures come from a twin: the same stack, trained in the same way on the same rows "
    "with poison planted in them. The model in this bundle was never trained on planted poison."
)
_SEARCHED = (
    "The candidates were found on other images than those of the audit; the pick among the few "
    "that were audited, and this model's own figures, are from the same test images."
)
_OTHERS = (
    "The audit measured models of the same stack, trained on fewer rows and from other seeds. "
    "Membership and inversion were measured on those alone: they require training many models."
)
_CERTIFIED = (
    "certified: the predictor proves, image by image, an L2 radius within which its answer stays, "
    "except with the declared probability"
)
_EMPIRICAL = "empirical: measured against the attacks below, nothing is proven"
_NONE = "none: it has no defense"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Measurements:
    """The exported model as it was measured after its training."""

    spec: TrialSpec
    """With its threats."""
    metrics: Mapping[str, MetricValue]
    attacks: tuple[str, ...]
    """Attacks of the evasion threat."""
    rows: int
    """Rows that it was trained on, after filtering."""
    training_rows: int
    """Training rows before filtering."""
    measured_rows: int
    """Images of the test pool."""
    hardware: Mapping[str, Any] = field(default_factory=dict)


def model_card(
    run: str, chosen: Audited, measured: Measurements, dataset: Dataset, facts: Facts
) -> dict[str, Any]:
    """Return the card of an exported model: what was audited, what it is and where it ends."""
    spec = measured.spec
    return {
        "format": FORMAT,
        "name": stack_label([defense.canonical() for defense in spec.stack]),
        "created": facts.created,
        "versions": dict(facts.versions),
        "run": run,
        "model": _model(spec, dataset, facts),
        "stack": [_defense(defense) for defense in spec.stack],
        "fitted": {name: dict(values) for name, values in facts.fitted.items() if values},
        "guarantee": _guarantee(spec.stack, facts),
        "answers": _answers(facts),
        "threat_model": [
            *(_threat(t, dataset, measured) for t in spec.threats if t.name != _COST),
            *_not_audited(chosen),
            _UNCOVERED,
        ],
        "audited": _audited(chosen),
        "measured": {
            "seed": spec.seed,
            "effort": spec.effort,
            "pool": f"test pool, {measured.measured_rows:,} images, none of them trained on",
            "metrics": _measured(measured.metrics),
            "missing": {
                name: value.reason
                for name, value in measured.metrics.items()
                if not isinstance(value, Measured)
            },
            "hardware": dict(measured.hardware),
        },
        "notes": [_SEARCHED, _OTHERS, *([_TWIN] if _has(spec.threats, "backdoor") else [])],
        "training_data": {
            "name": dataset.title,
            "fingerprint": dataset.fingerprint,
            "rows": measured.training_rows,
            "rows_after_filtering": measured.rows,
            "pools": "the whole clean training data except the calibration pool, on which "
            "thresholds and temperatures are fitted",
            "training": dict(spec.canonical()["training"]),
        },
        "limits": _declared(spec.stack, "limits"),
        "broken_by": _declared(spec.stack, "broken_by"),
        "program": {"file": facts.program, "why_not": facts.no_program},
        "reference": {
            "points": facts.reference_points,
            "seed": "declared: the same at every answer",
        },
    }


def _model(spec: TrialSpec, dataset: Dataset, facts: Facts) -> dict[str, Any]:
    return {
        "architecture": spec.model.name,
        "norm": spec.model.norm,
        "activation": spec.training.activation,
        "parameters": sum(p.numel() for p in facts.predictor.model.parameters()),
        "input": f"float32 (B, {', '.join(map(str, dataset.shape))}), pixels in [0, 1]",
        "normalisation": {"mean": list(dataset.mean), "std": list(dataset.std)},
        "classes": list(dataset.classes),
    }


def _defense(defense: Defense) -> dict[str, Any]:
    settings = {name: value for name, value in defense.canonical().items() if name != "name"}
    return {
        "name": defense.name,
        "settings": settings,
        "guarantee": defense.guarantee,
        "meaning": defense.meaning,
        "source": defense.source,
    }


def _guarantee(stack: Stack[Defense], facts: Facts) -> str:
    if not stack:
        return _NONE
    # What is proven is proven by the predictor as a whole: a detector behind it takes it away.
    one = facts.predictor
    certifies = any(d.guarantee == "certified" for d in stack) and not one.rejects
    return _CERTIFIED if certifies else _EMPIRICAL


def _answers(facts: Facts) -> list[str]:
    one = facts.predictor
    passes = one.forward_passes_per_prediction
    said = [f"{passes:,} forward pass{'es' if passes != 1 else ''} per answer"]
    if one.stochastic:
        said.append("it draws at random; `probabilities` uses one declared seed")
    if one.rejects:
        said.append("it may reject an image (label -1): a share of clean ones too, by design")
    return said


def _threat(threat: Threat, dataset: Dataset, measured: Measurements) -> str:
    said = f"{threat.name}: {threat.meaning}"
    if threat.name == "evasion":
        said += (
            " The attacker knows the whole defense and its weights, and moves each pixel by at "
            f"most {dataset.radius:.4g}, or the image by {dataset.radius_l2:.4g} in L2 (pixel "
            f"values of [0, 1]). Attacks: {', '.join(measured.attacks) or 'none'}."
        )
    settings = [
        f"{name}={value}"
        for name, value in threat.canonical().items()
        if name != "name" and value is not None
    ]
    return f"{said} Settings: {', '.join(settings)}." if settings else said


def _not_audited(chosen: Audited) -> list[str]:
    if not chosen.uncovered:
        return []
    return [
        f"Not attacked by: {', '.join(chosen.uncovered)} in the audit, whose verdict says nothing "
        "of them; a figure of such a threat below is of this one training."
    ]


def _audited(chosen: Audited) -> dict[str, Any]:
    return {
        "verdict": chosen.verdict,
        "because": chosen.because,
        "not_attacked_by": list(chosen.uncovered),
        "seeds": [record.spec["seed"] for record in chosen.records],
        "trials": [record.trial for record in chosen.records],
        "metrics": {
            name: _row(name, value) | {"seeds": chosen.seeds.get(name, 1)}
            for name, value in chosen.values.items()
        },
        "missing": dict(chosen.missing),
    }


def _measured(metrics: Mapping[str, MetricValue]) -> dict[str, Any]:
    return {name: _row(name, v) for name, v in metrics.items() if isinstance(v, Measured)}


def _row(name: str, value: Measured) -> dict[str, Any]:
    known = metric(name)
    return {
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "n": value.n,
        "meaning": known.meaning,
        "direction": known.direction,
        "unit": known.unit,
        "interval": known.interval,
    }


def _has(threats: Iterable[Threat], name: str) -> bool:
    return any(threat.name == name for threat in threats)


def _declared(stack: Stack[Defense], what: str) -> list[dict[str, str]]:
    """Return what each defense declares of its limits, or of how it was broken."""
    if not stack:
        return [{"defense": Defense.name, "text": text} for text in getattr(Defense, what)]
    silent = ("its author says nothing of it",)
    return [
        {"defense": defense.name, "text": text}
        for defense in stack
        for text in (
            # A class of a user's that declares nothing has what the undefended model has.
            silent
            if getattr(type(defense), what) is getattr(Defense, what)
            else getattr(defense, what)
        )
    ]
