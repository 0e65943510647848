"""Small bundles, and what others may do to them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from results.bundle.contents import Deployed
from results.bundle.members import INDEX, SEAL, to_json
from results.bundle.writing import write
from tests.making import context_of, spec_of
from trainables.defenses import Defense
from trainables.deployed.noting import deploy_noting
from trainables.deployed.predictor import Predictor
from trainables.trial.context import TrialContext
from trainables.trial.settings import ModelSpec

CARD_PLAIN: Mapping[str, Any] = {
    "name": "toy",
    "created": "today",
    "run": "demo",
    "audited": {"verdict": "verified", "because": "toy", "seeds": [1], "metrics": {}},
    "measured": {
        "seed": 7, "effort": "audit", "pool": "test pool", "metrics": {}, "missing": {},
        "hardware": {},
    },
    "model": {
        "architecture": "small_cnn", "norm": "none", "activation": "relu", "parameters": 1,
        "input": "float32", "classes": ["0", "1"],
    },
    "stack": [], "fitted": {}, "answers": [], "guarantee": "none", "threat_model": [], "notes": [],
    "training_data": {}, "limits": [], "broken_by": [],
    "program": {"file": None, "why_not": "toy"},
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A bundle, and the predictor that it was made of."""

    folder: Path
    predictor: Predictor
    ctx: TrialContext


def make_bundle(
    out: Path,
    store: Path,
    *stack: Defense,
    program: bool = False,
    model: ModelSpec | None = None,
    card: Callable[[Any], Mapping[str, Any]] = lambda facts: CARD_PLAIN,
) -> Made:
    """Train a stack for an epoch on the digits' deployment pools and write its bundle."""
    spec = spec_of(*stack, train_images=None, measured_images=80, pools="deployment", model=model)
    ctx = context_of(spec, store)
    trained = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed)
    weights = {name: t.clone() for name, t in trained.model.state_dict().items()}
    predictor, fitted = deploy_noting(ctx, ctx.spec.stack, trained.model)
    deployed = Deployed(spec=spec, dataset=ctx.dataset, weights=weights, fitted=fitted)
    write(out, deployed, ctx.pools.test, card, program=program)
    return Made(out, predictor, ctx)


def change_index(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the index and make all hashes anew, as somebody would who knows the format."""
    index = json.loads((folder / INDEX).read_text())
    change(index)
    reseal(folder, index)


def change_tensors(
    folder: Path, member: str, change: Callable[[dict[str, Tensor]], object]
) -> None:
    """Change the tensors of a member and make all hashes anew."""
    tensors = load_file(folder / member)
    change(tensors)
    save_file(tensors, folder / member)
    reseal(folder, json.loads((folder / INDEX).read_text()))


def reseal(folder: Path, index: dict[str, Any]) -> None:
    """Write the index with the hashes of the members as they are now, and its seal."""
    for name in index["files"]:
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            index["files"][name] = found
    text = to_json(index)
    (folder / INDEX).write_bytes(text)
    (folder / SEAL).write_text(f"{hashlib.sha256(text).hexdigest()}  {INDEX}\n")
