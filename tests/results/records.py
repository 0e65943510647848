"""Builds run folders by hand: manifests and records as the trials write them."""

import json
import math
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

Json = dict[str, Any]

OBJECTIVES = [
    {"metric": "clean_accuracy", "direction": "maximize", "worst": 0.0},
    {"metric": "robust_accuracy", "direction": "maximize", "worst": 0.0},
    {"metric": "membership_auc", "direction": "minimize", "worst": 1.0},
]
EVIL = "<script>alert('x')</script> loss became NaN"


def declared(meaning: str, direction: str, worst: float | None = None) -> Json:
    """Declare a metric as the manifest does."""
    return {
        "meaning": meaning, "direction": direction, "unit": "fraction",
        "interval": "Wilson score interval", "worst": worst, "source": "",
    }  # fmt: skip


METRICS = {
    "clean_accuracy": declared("Share of unattacked images that are right.", "maximize", 0.0),
    "robust_accuracy": declared("Share of points that stay right under attack.", "maximize", 0.0),
    "adversarial_accuracy_fgsm": declared("Accuracy on the images of fgsm.", "maximize", 0.0),
    "membership_auc": declared("Area under the ROC of the membership attack.", "minimize", 1.0),
}


def share(value: float, n: int = 270) -> Json:
    """Give a share as a metric with its Wilson interval."""
    z = 1.959964
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return {
        "value": value,
        "low": min(value, centre - half),
        "high": max(value, centre + half),
        "n": n,
    }


def manifest(**changes: Any) -> Json:
    """Give a manifest of three objectives."""
    plain: Json = {
        "format": 1,
        "run": "demo",
        "command": "python -m orchestrator launch --space full",
        "created": "2026-01-01T10:00:00+00:00",
        "trials": 40,
        "seed": 0,
        "description": "Every defense alone, then the search.",
        "space": {"name": "full"},
        "objectives": OBJECTIVES,
        "metrics": METRICS,
        "stage_versions": {"training": 1, "evasion": 2},
        "data_title": "digits",
        "radius": 0.15,
        "defenses": {
            "temperature": {
                "meaning": "Divide the scores by T.", "guarantee": "empirical",
                "source": "Guo et al., 2017", "slot": "deployment",
            }
        },
        "published": None,
    }  # fmt: skip
    return plain | changes


def record(trial: str, stack: list[Json] | None = None, **changes: Any) -> Json:
    """Give a completed record; `metrics` maps a name to a share or to a metric's JSON."""
    metrics = changes.pop("metrics", {"clean_accuracy": 0.9, "robust_accuracy": 0.5,
                                      "membership_auc": 0.6})  # fmt: skip
    spec: Json = {
        "data": {"name": "digits", "image_size": None, "pools": "search", "train_images": None,
                 "measured_images": None},
        "model": {"name": "small_cnn", "norm": "default"},
        "training": {"epochs": 30, "batch_size": 64, "learning_rate": 0.05},
        "stack": stack or [],
        "threats": [{"name": "evasion"}],
        "effort": "screen",
        "seed": changes.pop("seed", 0),
    }  # fmt: skip
    spec["training"] |= changes.pop("training", {})
    spec |= changes.pop("spec", {})
    return {
        "trial": trial,
        "spec": spec,
        "sampled": {},
        "status": "completed",
        "error": None,
        "metrics": {k: v if isinstance(v, dict) else share(v) for k, v in metrics.items()},
        "curves": {},
        "timings": {"training": 3.5, "evasion": 1.25},
        "artefacts": {},
        "notes": {},
        "hardware": {},
        "versions": {},
        "stage_versions": {"training": 1, "evasion": 2},
        "started": "",
        "finished": "",
    } | changes


def write_run(folder: Path, plain: Json, records: list[Json]) -> Path:
    """Write a run's folder."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(plain))
    for single in records:
        (folder / "records" / f"{single['trial']}.json").write_text(json.dumps(single))
    return folder


def fgsm(eps: float | list[float]) -> Json:
    """Give FGSM adversarial training as a stack's entry."""
    return {"name": "fgsm_adversarial_training", "eps": eps, "fraction": 0.5, "random_start": False}


def temperature(value: float | str) -> Json:
    """Give a temperature as a stack's entry."""
    return {"name": "temperature", "T": value}


def demo_records() -> list[Json]:
    """Give 40 records: singles, stacks, an undefended one, two failed, one stopped, one stale."""
    draw = random.Random(0)
    stacks: list[list[Json]] = [[]]
    stacks += [[fgsm(round(0.015 * step, 4))] for step in range(1, 8)]
    stacks += [[{"name": "gradient_regularization", "lam": 0.02 * 4**step}] for step in range(6)]
    stacks += [[{"name": "label_smoothing", "alpha": 0.05 * step}] for step in range(1, 4)]
    stacks += [[temperature(1.5)], [temperature("fit")]]
    for step in range(21):
        alpha = {"name": "label_smoothing", "alpha": round(draw.uniform(0, 0.3), 4)}
        stack = [fgsm(round(draw.uniform(0.01, 0.2), 4)), alpha]
        stacks.append(stack + ([temperature(round(draw.uniform(1, 5), 3))] if step % 2 else []))
    records = []
    for place, stack in enumerate(stacks):
        strength = min(1.0, 8 * sum(d.get("eps", d.get("lam", 0.1) / 99) for d in stack))
        scores = {
            "clean_accuracy": round(0.97 - 0.12 * strength + draw.uniform(-0.03, 0.01), 4),
            "robust_accuracy": round(0.25 + 0.5 * strength + draw.uniform(-0.08, 0.05), 4),
            "membership_auc": round(0.62 - 0.06 * len(stack) + draw.uniform(-0.03, 0.03), 4),
        }
        curve = [round(2.2 * 0.85**epoch + 0.1 + 0.05 * strength, 4) for epoch in range(30)]
        curves = {
            "train_loss": curve,
            "train_accuracy": [round(1 - loss / 2.5, 4) for loss in curve],
            "validation_loss": [round(loss * 1.15 + 0.05, 4) for loss in curve],
            "validation_accuracy": [round(0.97 - loss / 2.5, 4) for loss in curve],
        }
        records.append(
            record(sha256(str(place).encode()).hexdigest()[:16], stack,
                   metrics=scores, curves=curves, finished=f"2026-01-01T10:{place:02d}:00+00:00")
        )  # fmt: skip
    for place, error in ((5, EVIL), (20, "out of memory")):
        records[place] |= {"status": "failed", "error": error, "metrics": {}, "curves": {}}
    records[25] |= {"status": "stopped"}
    records[30] |= {"stage_versions": {"training": 1, "evasion": 1}}
    return records
