"""What a poisoned training set does to the stack: a twin is trained on it and triggered.

Axes: N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.datasets import Dataset, LabelledImages
from trainables.defenses import Defense, Stack
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.parameters import PIXELS, parameter
from trainables.records.value import Measured
from trainables.storage.identity import seed_from
from trainables.threats.backdoor.clean_label import obscured
from trainables.threats.backdoor.poison import Poisoned, Portion, Recipe
from trainables.threats.backdoor.triggers import KINDS, PLACES, Trigger
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

ALL = "all"
_BINS = 40


@dataclass(frozen=True, kw_only=True)
class Backdoor(Threat):
    """Poison the training set, train a twin under the same stack, and show it the trigger.

    The twin has the trial's seed, network, training and defenses, filters included; the model that
    may be deployed is never poisoned. Its accuracy on clean images is compared with that of the
    deployed model. What a filter removes is counted among poisoned and clean rows.
    """

    name = "backdoor"
    meaning = "Part of the training set is stamped with a trigger that should control the model."
    source = "Gu et al., 2017; Chen et al., 2017; Tran et al., 2018; Turner et al., 2019"
    VERSION = 2

    trigger: str = parameter("patch", kind="word", words=KINDS, meaning="what is stamped")
    size: int = parameter(
        2, kind="int", low=1, high=1000, unit="image pixels",
        meaning="side of the patch on images of up to 32x32; on larger ones it covers the same "
        "share of the side, 14 pixels of 224 by default",
    )  # fmt: skip
    place: str = parameter(
        "bottom_right", kind="word", words=tuple(PLACES), meaning="where patch or pixel stand"
    )
    colour: float = parameter(
        1.0, kind="float", meaning="of patch or pixel, in every channel", low=0.0, high=1.0
    )
    strength: float = parameter(
        0.2, kind="float", meaning="share of the pattern in a blended image", low=0.01, high=1.0
    )
    target: int = parameter(
        0, kind="int", meaning="class that triggered images should be classified as",
        low=0, high=100_000,
    )  # fmt: skip
    source_class: int | str = parameter(
        1, kind="int", meaning="class that is stamped, or all", low=0, high=100_000, words=(ALL,)
    )
    rate: float = parameter(0.1, kind="float", meaning="poison rate", low=1e-6, high=10.0)
    rate_of: str = parameter(
        "class", kind="word", words=("class", "set"),
        meaning="what the rate is of: the target class' clean rows, or the whole training set",
    )  # fmt: skip
    labels: str = parameter(
        "changed", kind="word", words=("changed", "kept"),
        meaning="changed: stamped rows of the source are called the target; kept (clean-label): "
        "rows of the target are made hard to recognise, then stamped",
    )  # fmt: skip
    obscuring_eps: float | None = parameter(
        None, kind="float", low=0.0, high=1.0, unit=PIXELS,
        meaning="Linf distance by which clean-label rows are moved; by default the radius",
    )  # fmt: skip

    def metric_names(self) -> tuple[str, ...]:
        """List what the attack is judged by."""
        return (
            "backdoor_success_rate",
            "untriggered_success_rate",
            "poisoned_clean_accuracy",
            "poison_recall",
            "clean_removal_rate",
            "samples_removed",
        )

    def check(self, dataset: Dataset) -> None:
        """Raise InputError for classes that the data set lacks, and for a patch that does not fit
        its images.
        """
        recipe = self.recipe()
        recipe.check(dataset.num_classes)
        recipe.trigger.check(*dataset.shape[1:])

    def foreseen(self, ctx: TrialContext) -> str:
        """Return why the rows of the pools do not allow the attack, or not at its rate."""
        try:
            recipe = self.recipe()
            _victims(ctx, recipe)
            return recipe.portion(ctx.pools.train.labels).capped
        except InputError as refusal:
            return str(refusal).removeprefix(f"{self.name}: ")

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Train the twin and measure it on the held-out pool."""
        del predictor  # the deployed model is not poisoned; its twin is
        recipe = self.recipe()
        self.check(ctx.dataset)
        portion, victims = recipe.portion(ctx.pools.train.labels), _victims(ctx, recipe)
        stack, seed = ctx.spec.stack, ctx.spec.seed
        poisoned = self._poisoned(ctx, recipe)
        twin_ctx = ctx.twin(train=poisoned.data)
        twin = twin_ctx.train(stack, poisoned.data, seed)
        ctx.log.note("twin", twin.key)
        deployed = twin_ctx.deploy(stack, twin.model)
        removed = torch.ones_like(poisoned.mask)
        removed[twin.kept] = False
        own = ctx.train(stack, ctx.pools.train, seed)
        metrics: dict[str, Measured] = {
            **_success(deployed, twin_ctx, recipe, victims),
            "poison_recall": _share(removed[poisoned.mask]),
            "clean_removal_rate": _share(removed[~poisoned.mask]),
            "samples_removed": intervals.exact(len(ctx.pools.train) - len(own.kept)),
        }
        notes = {
            "patch_side": recipe.trigger.side(*ctx.dataset.shape[1:]),
            "poisoned_rows": int(poisoned.mask.sum()),
            "remarks": self._remarks(portion, metrics),
            "training_rows": len(poisoned.mask),
            "removed_rows": int(removed.sum()),
            "share_of_target_class": float(
                poisoned.mask.sum() / (poisoned.data.labels == self.target).sum()
            ),
            "row_scores": _histograms(stack, twin_ctx, poisoned, self.target),
        }
        return Findings(metrics=dict(metrics), notes=notes)

    def recipe(self) -> Recipe:
        """Return the poisoning that the parameters describe."""
        trigger = Trigger(
            kind=self.trigger,
            size=self.size,
            place=self.place,
            colour=self.colour,
            strength=self.strength,
        )
        source = None if self.source_class == ALL else int(self.source_class)
        return Recipe(
            trigger=trigger,
            target=self.target,
            source=source,
            rate=self.rate,
            rate_of=self.rate_of,
            keeps_labels=self.labels == "kept",
        )

    def _remarks(self, portion: Portion, metrics: Mapping[str, Measured]) -> list[str]:
        """Return in words what to know of the attack: its rate not met, a success not its own."""
        found = [portion.capped] if portion.capped else []
        success, without = metrics["backdoor_success_rate"], metrics["untriggered_success_rate"]
        if self.trigger != "none" and without.value > 0 and without.high >= success.low:
            found.append(
                f"{100 * without.value:.1f} % of the stamped classes are classified as the target "
                "without the trigger as well: the success need not be the trigger's"
            )
        return found

    def _poisoned(self, ctx: TrialContext, recipe: Recipe) -> Poisoned:
        # Of data and seed alone: all stacks meet one poisoned set and share what is made of it.
        seed = seed_from("backdoor", ctx.dataset.fingerprint, str(ctx.spec.seed))
        generator = torch.Generator().manual_seed(seed)
        if not recipe.keeps_labels:
            return recipe.apply(ctx.pools.train, generator)
        eps = ctx.dataset.radius if self.obscuring_eps is None else self.obscuring_eps
        crafting = torch.Generator(ctx.device).manual_seed(seed)
        return recipe.apply(
            ctx.pools.train,
            generator,
            lambda rows: obscured(rows, ctx, eps=eps, generator=crafting),
        )


def _victims(ctx: TrialContext, recipe: Recipe) -> LabelledImages:
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


def _success(
    deployed: Predictor, ctx: TrialContext, recipe: Recipe, victims: LabelledImages
) -> dict[str, Measured]:
    """Show the twin clean images, and those of the stamped classes with and without the trigger."""
    held_out = ctx.held_out
    triggered = LabelledImages(
        pixels=recipe.trigger.stamp(victims), labels=victims.labels, scale=victims.scale
    )
    # What is rejected is not a success.
    return {
        "backdoor_success_rate": _share(ctx.answers(deployed, triggered).label == recipe.target),
        "untriggered_success_rate": _share(ctx.answers(deployed, victims).label == recipe.target),
        "poisoned_clean_accuracy": _share(ctx.answers(deployed, held_out).label == held_out.labels),
    }


def _share(found: Tensor) -> Measured:
    return intervals.proportion(int(found.sum()), len(found))


def _histograms(
    stack: Stack[Defense], ctx: TrialContext, poisoned: Poisoned, target: int
) -> dict[str, dict[str, list[float]]]:
    """Count the filters' scores of the target class' rows, clean and poisoned separately."""
    found = {}
    for defense in stack:
        scores = defense.row_scores(poisoned.data, ctx)
        if scores is None:
            continue
        rows = poisoned.data.labels == target
        edges = np.linspace(0, float(scores[rows].max()), _BINS + 1)
        found[defense.name] = {
            "edges": edges.tolist(),
            **{
                kind: np.histogram(scores[rows & mask].cpu().numpy(), edges)[0].tolist()
                for kind, mask in (("clean", ~poisoned.mask), ("poisoned", poisoned.mask))
            },
        }
    return found
