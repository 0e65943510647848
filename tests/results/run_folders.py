"""Builds run folders by hand: manifests and records as the trials write them."""

import base64
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
    """Return a share as a metric with its Wilson interval."""
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
    """Return a manifest of three objectives."""
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
    """Return a completed record; `metrics` maps a name to a share or to a metric's JSON."""
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
    """Return FGSM adversarial training as a stack's entry."""
    return {"name": "fgsm_adversarial_training", "eps": eps, "fraction": 0.5, "random_start": False}


def temperature(value: float | str) -> Json:
    """Return a temperature as a stack's entry."""
    return {"name": "temperature", "T": value}


def demo_records() -> list[Json]:
    """Return 40 records: singles, stacks, an undefended one, two failed, one stopped, one stale."""
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


ATTACKS = ("fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd")
MULTIPLES = {"0_5": 0.5, "1_5": 1.5, "2": 2.0, "4": 4.0}
ATTACK_METRICS = METRICS | {
    "masking_suspected": declared("1 where a sign of masking shows.", "minimize", 1.0),
    **{
        f"robust_accuracy_at_radius_{name}": declared(f"At {multiple:g} times the radius.",
                                                      "maximize", 0.0)
        for name, multiple in MULTIPLES.items()
    },
    "robust_accuracy_unbounded": declared("In the ball that holds every image.", "none"),
    "detection_auroc": declared("Area under the ROC of the detector.", "maximize", 0.0),
    "detection_tpr_at_fpr_0_05": declared("Share found at 5 % FPR.", "maximize", 0.0),
    "undetected_success_rate": declared("Share past the detector.", "minimize", 1.0),
    "clean_rejection_rate": declared("Share of unattacked rejected.", "minimize", 1.0),
}  # fmt: skip


def evasion_notes(words: str = "", **changes: Any) -> Json:
    """Return a record's notes on how it was attacked; `words` are those of a failed check."""
    indicator = {"name": "fgsm_beats_pgd", "words": words, "figure": 0.2, "low": 0.15,
                 "limit": 0.02, "n": 270, "failed": bool(words)}  # fmt: skip
    plain: Json = {
        "points": 270,
        "radius": 0.15,
        "masking": {
            "suspected": bool(words),
            "words": words,
            "indicators": [indicator],
            "sight": sight_notes(),
        },
        "adaptive": True,
        "not_adaptive_because": [],
        "surfaces": [{"kind": "exact", "draws": 1, "detector_aware": False}],
        "stochastic": False,
        "undeclared_randomness": False,
        "pictures": picture_notes(),
    }
    return {"evasion": plain | changes}


def sight_notes(probability: float = 0.94, n: int = 100) -> Json:
    """Return the notes on how large a mask the masking check would have seen."""
    return {"mask": 0.1, "probability": probability, "n": n, "enough": 0.8, "points_needed": 54}


def picture_notes(after: tuple[int, ...] = (3, -1)) -> Json:
    """Return two 4x4 images of class 3 before and after an attack; `after` are the answers then."""
    dark, bright = (base64.b64encode(bytes([value] * 16)).decode() for value in (10, 200))
    images = [
        {"label": 3, "before": 3, "after": answer, "clean": dark, "attacked": bright}
        for answer in after
    ]
    return {"attack": "pgd", "shape": [4, 4, 1], "images": images}


def curve_scores(clean: float, robust: float, unbounded: float = 0.0) -> dict[str, float]:
    """Return robust accuracy at every radius, falling from `clean` through `robust`."""
    rate = robust / clean
    at = {
        f"robust_accuracy_at_radius_{name}": round(clean * rate**multiple, 4)
        for name, multiple in MULTIPLES.items()
    }
    return at | {"robust_accuracy_unbounded": unbounded}


def broken_points(clean: float, robust: float, n: int = 270) -> list[str]:
    """Name the first attack that breaks each point, the points shared out among all attacks."""
    names = ["none"] * round(n * robust) + ["clean"] * round(n * (1 - clean))
    left = max(0, n - len(names))
    return names + [ATTACKS[place % len(ATTACKS)] for place in range(left)]


def attacked_records(words: str = EVIL) -> list[Json]:
    """Return the demo's records with notes on the attacks.

    The last four of those that count become: one with masking suspected (`words`), one not attacked
    adaptively, one that rejects, one that is random.
    """
    rows = demo_records()
    for row in rows:
        if row["status"] == "failed":
            continue
        clean, robust = (
            row["metrics"][f"{kind}_accuracy"]["value"] for kind in ("clean", "robust")
        )
        scores = curve_scores(clean, robust) | {"masking_suspected": 0.0}
        row["metrics"] |= {name: share(value) for name, value in scores.items()}
        row["notes"] = evasion_notes(broken_by=broken_points(clean, robust))
    masked, blind, rejecting, stochastic = rows[-4:]
    for row in (masked, blind):
        row["metrics"] |= {"clean_accuracy": share(0.99), "robust_accuracy": share(0.97)}
    masked["metrics"]["masking_suspected"] = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 270}
    masked["notes"] = evasion_notes(words)
    blind["notes"] = evasion_notes(
        adaptive=False, not_adaptive_because=["no surface has a gradient <here>"]
    )
    rejecting["metrics"] |= {
        "detection_auroc": share(0.91), "detection_tpr_at_fpr_0_05": share(0.62),
        "undetected_success_rate": share(0.31), "clean_rejection_rate": share(0.05),
    }  # fmt: skip
    rejecting["notes"]["evasion"]["surfaces"][0]["detector_aware"] = True
    stochastic["notes"]["evasion"] |= {
        "stochastic": True,
        "surfaces": [{"kind": "eot", "draws": 8, "detector_aware": False}],
    }
    return rows
