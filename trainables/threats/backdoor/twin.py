"""A twin: a model of the same stack on a poisoned training set, and what it does.

Axes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.defenses import Defense, Stack
from trainables.errors import InputError
from trainables.storage.artefacts import Artefact
from trainables.threats.backdoor.poison import Poisoned, Recipe
from trainables.training import loop
from trainables.trial.context import TrialContext

Count = tuple[int, int]
"""How many of how many."""
_BINS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFindings:
    """What a twin does to the images of one pair."""

    source: int | None
    target: int
    triggered: Count
    """Stamped images that are classified as the target; a rejection is not a success."""
    untriggered: Count
    """The same images without the trigger."""
    removed: Count
    """Poisoned rows that the stack removed."""
    target_rows: int
    """Rows that are called the target, poison included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinFindings:
    """What one twin does."""

    twin: str
    """Key of its artefact."""
    pairs: tuple[PairFindings, ...]
    clean: Count
    """Clean images that are classified right."""
    clean_removed: Count
    """Rows that are not poisoned and were removed."""
    covers: int
    row_scores: Mapping[str, Mapping[str, list[float]]]
    """Filter -> histogram of its scores in the first pair's target class."""

    @property
    def poisoned_rows(self) -> int:
        """The number of poisoned rows, of all pairs."""
        return sum(pair.removed[1] for pair in self.pairs)

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def twin_from_plain(plain: Mapping[str, Any]) -> TwinFindings:
    """Read the findings back from plain JSON values."""
    pairs = tuple(_pair_from_plain(row) for row in plain["pairs"])
    counts = {name: (int(plain[name][0]), int(plain[name][1])) for name in _COUNTS}
    return TwinFindings(**{**plain, "pairs": pairs, **counts})


def _pair_from_plain(plain: Mapping[str, Any]) -> PairFindings:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
    }
    return PairFindings(**values)


_COUNTS = ("clean", "clean_removed")
Poisoning = Callable[[Recipe, LabelledImages, Tensor | None], Poisoned]
"""Applies a recipe to a training set, of which some rows (N,) are taken."""


def cached_twin(
    ctx: TrialContext,
    recipes: Sequence[Recipe],
    poison: Poisoning,
    *,
    identity: Mapping[str, Any],
    role: str,
) -> TwinFindings:
    """Return what a twin with the poison of several recipes does, from the store if it is there."""
    key = {
        **identity,
        "training": loop.VERSION,
        "deployment": ctx.deployment,
        "pairs": [[recipe.source, recipe.target] for recipe in recipes],
        "asked": content_hash(ctx.held_out),
    }

    def build() -> Artefact:
        return Artefact(values=measure_twin(ctx, recipes, poison).plain())

    return twin_from_plain(ctx.cached("backdoor_twin", key, build, role=role).values)


def measure_twin(ctx: TrialContext, recipes: Sequence[Recipe], poison: Poisoning) -> TwinFindings:
    """Train a twin on a training set that several recipes have poisoned, and ask it.

    Raises InputError where there is nothing to poison or to ask.
    """
    victims = [victims_of(ctx, recipe) for recipe in recipes]
    data, masks, covers = _poisoned(ctx, recipes, poison)
    mask = torch.stack(masks).any(0)
    stack, seed = ctx.spec.stack, ctx.spec.seed
    twin_ctx = ctx.twin(train=data)
    twin = twin_ctx.train(stack, data, seed)
    deployed = twin_ctx.deploy(stack, twin.model)
    removed = torch.ones_like(mask)
    removed[twin.kept] = False

    def answers(images: LabelledImages) -> Tensor:
        return twin_ctx.answers(deployed, images).label

    pairs = tuple(
        PairFindings(
            source=recipe.source,
            target=recipe.target,
            triggered=_count(answers(_stamped(recipe, asked)) == recipe.target),
            untriggered=_count(answers(asked) == recipe.target),
            removed=_count(removed[own]),
            target_rows=int((data.labels == recipe.target).sum()),
        )
        for recipe, asked, own in zip(recipes, victims, masks, strict=True)
    )
    return TwinFindings(
        twin=twin.key,
        pairs=pairs,
        clean=_count(answers(ctx.held_out) == ctx.held_out.labels),
        clean_removed=_count(removed[~mask]),
        covers=int(covers.sum()),
        row_scores=_histograms(stack, twin_ctx, data, masks[0], recipes[0].target),
    )


def victims_of(ctx: TrialContext, recipe: Recipe) -> LabelledImages:
    """Return the measured images that are stamped; InputError where there are none."""
    held_out = ctx.held_out
    rows = recipe.may_be_stamped(held_out.labels).nonzero().flatten()
    if len(rows) == 0:
        stamped = "another class" if recipe.source is None else f"class {recipe.source}"
        raise InputError(
            f"backdoor: the measured pool has no image of {stamped} to put the trigger on; "
            "measure more images or take another source_class"
        )
    return held_out.select(rows)


def _poisoned(
    ctx: TrialContext, recipes: Sequence[Recipe], poison: Poisoning
) -> tuple[LabelledImages, list[Tensor], Tensor]:
    """Apply the recipes one after the other; return the rows, each recipe's poison, the covers."""
    data, masks = ctx.pools.train, list[Tensor]()
    covers = torch.zeros(len(data), dtype=torch.bool, device=data.labels.device)
    taken: Tensor | None = None
    for recipe in recipes:
        found = poison(recipe, data, taken)
        data, covers = found.data, covers | found.covers
        masks.append(found.mask)
        taken = torch.stack([*masks, covers]).any(0)
    return data, masks, covers


def _stamped(recipe: Recipe, images: LabelledImages) -> LabelledImages:
    return LabelledImages(
        pixels=recipe.trigger.stamp(images), labels=images.labels, scale=images.scale
    )


def _count(found: Tensor) -> Count:
    return int(found.sum()), len(found)


def _histograms(
    stack: Stack[Defense], ctx: TrialContext, data: LabelledImages, mask: Tensor, target: int
) -> dict[str, dict[str, list[float]]]:
    """Count the filters' scores of the target class' rows, clean and poisoned separately."""
    found = {}
    for defense in stack:
        scores = defense.row_scores(data, ctx)
        if scores is None:
            continue
        rows = data.labels == target
        edges = np.linspace(0, float(scores[rows].max()), _BINS + 1)
        found[defense.name] = {
            "edges": edges.tolist(),
            **{
                kind: np.histogram(scores[rows & of].cpu().numpy(), edges)[0].tolist()
                for kind, of in (("clean", ~mask), ("poisoned", mask))
            },
        }
    return found
