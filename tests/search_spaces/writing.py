"""Small space files for tests."""

from pathlib import Path
from typing import Any

import yaml

TINY: dict[str, Any] = {
    "name": "tiny",
    "description": "A space whose trials take a fraction of a second.",
    "scenarios": [{"dataset": "digits", "training": {"epochs": 1}}],
    "defenses": {
        "label_smoothing": {"alpha": {"low": 0.01, "high": 0.3}},
        "temperature": {"T": [1.5, 2, "fit"]},
    },
    "max_stack": 2,
    "objectives": ["clean_accuracy", "generalization_gap"],
    "search": {"algorithm": "random", "trials": 6},
}


def write_space(folder: Path, **changes: Any) -> Path:
    """Write the tiny space with some keys changed (None: left out) and give its path."""
    plain = {**TINY, **changes}
    path = folder / f"{plain['name']}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in plain.items() if v is not None}))
    return path
