"""Attackers who owe nothing to the attacked model's gradients: other models' images, labels alone.

A gradient that leads nowhere misleads every attack that climbs it, and a surrogate of the same
stack may have the same mask. Images made on an undefended or on a plain adversarially trained
network inherit none of it, nor does a walk that asks for labels alone.

Axes: N points, R of them that are attacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainables.attacks import variant
from trainables.threats.evasion.attacking import Attacker
from trainables.threats.evasion.masking import Indicator, broken_alone
from trainables.threats.evasion.run import Run

TRANSFERS = {
    "transfer": "images made on another model of the stack",
    "transfer_undefended": "images made on an undefended model",
    "transfer_hardened": "images made on a plain adversarially trained model",
}
"""Transfer attack -> what it tries."""
BY_LABELS = {"linf": "hop_skip_jump", "l2": "hop_skip_jump_l2"}
"""Norm -> the attack on what still stands, which asks for labels alone."""
_FOLLOW_GRADIENTS = ("fgsm", "pgd", "pgd_dlr", "targeted_margin_pgd", "detector_aware_pgd")


def attack_by_labels(
    attacker: Attacker,
    runs: Mapping[str, Run],
    standing: Mapping[str, Tensor],
    chosen: Tensor,
    radii: Mapping[str, float],
) -> dict[str, Run]:
    """Attack what every attack left standing by labels alone, in each norm that was attacked.

    `standing` is the mask (N,) of each norm; of it the chosen rows (R,) are attacked, within the
    norm's radius. A run says of all points what was found: one that was not attacked withstood it.
    An attack that is among the runs already has attacked all points and is not run again.
    """
    found = {}
    for norm, mask in standing.items():
        name = BY_LABELS[norm]
        if name not in runs:
            marked = mask[chosen].nonzero().flatten()
            found[name] = _on_rows(attacker, name, chosen[marked], radii[norm])
    return found


def _on_rows(attacker: Attacker, name: str, rows: Tensor, eps: float) -> Run:
    clean = attacker.points.images()
    none = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
    queries = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
    whole = Run(
        adversarial=clean,
        withstood=~none,
        fooled=none,
        disagrees=none,
        nll=torch.zeros(len(clean), device=clean.device),
        by_rounding=none,
        queries=queries,
    )
    if len(rows) == 0:
        return whole
    run = attacker.on(rows).run(name, eps=eps)
    asked = queries if run.queries is None else queries.index_copy(0, rows, run.queries)
    return replace(
        whole.with_rows(rows, run),
        queries=asked,
        gradients=run.gradients,
        not_finite=run.not_finite,
    )


def by_labels_notes(
    decided: Mapping[str, Run], standing: Mapping[str, Tensor], chosen: Tensor
) -> dict[str, Any]:
    """Return how many standing points were attacked by labels alone, and at how many queries."""
    notes = {}
    for name, run in decided.items():
        asked = run.queries
        assert asked is not None
        attacked = int(standing[variant(name).norm][chosen].sum())
        notes[name] = {
            "points": attacked,
            "broken": int(run.broken.sum()),
            "queries_per_point": float(asked.sum()) / attacked if attacked else 0.0,
            "most_queries": int(asked.max()),
        }
    return notes


def outsider_signs(
    runs: Mapping[str, Run], decided: Mapping[str, Run], chosen: Tensor
) -> list[Indicator]:
    """Return the signs that outsiders break points which no attack by gradients does.

    A point is broken where the image is accepted and wrong. Transfers are judged on all points,
    attacks by labels on the chosen ones (R,), whether they still stood or not.
    """
    climbing = [runs[name].broken for name in _FOLLOW_GRADIENTS if name in runs]
    gradients = torch.stack(climbing).any(0)
    signs = [
        broken_alone(
            f"{name}_beats_gradients",
            f"{words} break points that gradients do not",
            gradients,
            runs[name].broken,
        )
        for name, words in TRANSFERS.items()
        if name in runs
    ]
    for name, run in decided.items():
        # What it attacks no other attack broke.
        signs.append(
            broken_alone(
                f"{name}_beats_gradients",
                "a walk by labels alone breaks points that nothing else does",
                torch.zeros_like(run.broken[chosen]),
                run.broken[chosen],
            )
        )
    return signs
