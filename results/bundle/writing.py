"""A deployed stack written as a bundle, and read back before it is shown to anybody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from results.bundle.card_text import card_markdown
from results.bundle.contents import Deployed, describe, restore, tensors_of
from results.bundle.loading import load
from results.bundle.members import (
    CARD,
    CARD_TEXT,
    FORMAT,
    KIND,
    PROGRAM,
    REFERENCE,
    WEIGHTS,
    check_absent,
    to_json,
    write_members,
)
from results.bundle.program import probabilities_program
from results.bundle.reference import TOLERANCE, differences, make_reference
from trainables.datasets import LabelledImages
from trainables.deployed.predictor import Predictor
from trainables.records.versions import installed_versions

_CPU = torch.device("cpu")
_PACKAGES = ("defense-sweep", "torch", "torchvision", "numpy", "scikit-learn", "safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What a card states about the bundle itself."""

    predictor: Predictor
    created: str
    versions: Mapping[str, str]
    program: str | None
    """The program's file, or None."""
    no_program: str
    """Why there is no program."""
    reference_points: int
    fitted: Mapping[str, Mapping[str, Any]]
    """Name -> plain values of what was fitted."""


def write(
    out: Path,
    deployed: Deployed,
    pool: LabelledImages,
    card: Callable[[Facts], Mapping[str, Any]],
    *,
    program: bool = True,
) -> None:
    """Write a bundle whole or not at all; its reference inputs come from the pool.

    `program` asks for a torch.export program where the stack allows one. Raises BundleError where
    the folder is not empty or cannot be written, and RuntimeError where the bundle, loaded again,
    does not answer as what it was made of: then nothing is left behind.
    """
    check_absent(out)
    tensors = tensors_of(deployed)
    own = describe(deployed)
    restored = restore(own, tensors, own_code=True, device=_CPU)
    reference = make_reference(restored.predictor, pool)
    content, reason = None, "it was not asked for"
    if program:
        content, reason = probabilities_program(restored.predictor, reference.images)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    facts = Facts(
        predictor=restored.predictor,
        created=created,
        versions=installed_versions(_PACKAGES),
        program=PROGRAM if content else None,
        no_program=reason,
        reference_points=len(reference.images),
        fitted={name: _numbers(part.values) for name, part in deployed.fitted.items()},
    )
    plain = card(facts)
    members = {
        WEIGHTS: save_tensors(tensors),
        REFERENCE: save_tensors(reference.tensors()),
        CARD: to_json(plain),
        CARD_TEXT: card_markdown(plain).encode(),
        **({PROGRAM: content} if content else {}),
    }
    index = {
        "kind": KIND,
        "format": FORMAT,
        "created": created,
        "versions": dict(facts.versions),
        "trial": replace(deployed.spec, threats=()).trial,
        **own,
    }
    write_members(out, members, index, _answers_again)


def _answers_again(folder: Path) -> None:
    """Raise RuntimeError where a bundle does not answer as it did."""
    again = load(folder, own_code=True)
    found = differences(again.predictor, again.reference)
    if max(found.values()) > TOLERANCE:
        raise RuntimeError(f"the bundle, loaded again, answers otherwise: {found}")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the single numbers among what was fitted, without the curves of trainings."""
    return {n: v for n, v in values.items() if isinstance(v, int | float)}
