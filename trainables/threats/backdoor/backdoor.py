"""What a poisoned training set does to the stack: a twin is trained on it and triggered.

Axes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from trainables.datasets import Dataset, LabelledImages
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.metrics.poisoning import success_metric
from trainables.parameters import PIXELS, parameter
from trainables.records.value import Measured
from trainables.storage.identity import seed_from
from trainables.threats.backdoor.adaptive import adaptive_attacks, clean_rows
from trainables.threats.backdoor.attacks import ATTACKS, OWN, WORST
from trainables.threats.backdoor.clean_label import obscured
from trainables.threats.backdoor.pairs import Pair, attackable, draw_pairs, rates_not_met
from trainables.threats.backdoor.poison import Disguise, Poisoned, Recipe
from trainables.threats.backdoor.summary import by_success, pairs_of, plain_attacks, summarized
from trainables.threats.backdoor.triggers import KINDS, PLACES, Trigger
from trainables.threats.backdoor.twin import TwinFindings, cached_twin, measure_twin, victims_of
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext
from trainables.trial.trainer import KEPT

ALL = "all"
COVERS: Mapping[str, float] = {"wanet": 2.0, "adaptive_blend": 1.0}
"""Trigger -> covers for each poisoned row, where its paper has any."""
_LATER = (
    "covers", "grid", "warp", "amplitude", "frequency", "attacks", "pairs", "pairs_seen",
    "worst_at",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Backdoor(Threat):
    """Poison the training set, train a twin under the same stack, and show it the trigger.

    The twin has the trial's seed, network, training and defenses, filters included; the model that
    may be deployed is never poisoned. Its accuracy on clean images is compared with that of the
    deployed model. What a filter removes is counted among poisoned and clean rows.

    With `attacks` or `pairs`, as in an audit, several attacks are measured on several pairs of
    classes that are drawn, the same for all stacks and seeds; pairs without a common class share a
    twin. The stack's own adaptive attacks are added. The figures are those of the worst attack by
    its mean over the pairs.
    """

    name = "backdoor"
    meaning = "Part of the training set is stamped with a trigger that should control the model."
    source = (
        "Gu et al., 2017; Chen et al., 2017; Tran et al., 2018; Turner et al., 2019; Barni et al., "
        "2019; Nguyen & Tran, 2021; Tang et al., 2021; Qi et al., 2023"
    )
    VERSION = 3

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
        meaning="Linf distance by which clean-label rows are moved; by default the radius, 0 of "
        "sig, whose clean-label rows are stamped alone",
    )  # fmt: skip
    covers: float | None = parameter(
        None, kind="float", low=0.0, high=100.0,
        meaning="rows of other classes that are stamped and keep their labels, for each poisoned "
        "row; by default 2 of wanet (warped with noise), 1 of adaptive_blend, else none",
    )  # fmt: skip
    grid: int = parameter(
        4, kind="int", low=2, high=64, meaning="control points of wanet's field in a direction"
    )
    warp: float = parameter(
        0.5, kind="float", low=0.01, high=10.0, unit="half pixels",
        meaning="mean displacement of wanet's control points",
    )  # fmt: skip
    amplitude: float = parameter(
        40 / 255, kind="float", low=1 / 255, high=1.0, unit=PIXELS, meaning="of sig's sinusoid"
    )
    frequency: int = parameter(
        6, kind="int", low=1, high=1000, meaning="waves of sig's sinusoid over the width"
    )
    attacks: tuple[str, ...] | None = parameter(
        None, kind="word", many=True, words=(OWN, *ATTACKS),
        meaning="attacks that are measured; by default own, the one of these parameters",
    )  # fmt: skip
    pairs: int = parameter(
        0, kind="int", low=0, high=1000,
        meaning="pairs of classes that are drawn instead of source_class and target, as far as "
        "there are any others",
    )  # fmt: skip
    pairs_seen: int = parameter(
        0, kind="int", low=0, high=1000,
        meaning="pairs that are drawn first and left out, as many as a search has measured",
    )  # fmt: skip
    worst_at: int | None = parameter(
        None, kind="int", low=0, high=10**9,
        meaning="seed whose two most successful attacks are measured alone",
    )  # fmt: skip

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters; later ones only where they are not the default, so that
        trials from before there were any keep their identity.
        """
        plain, fields = super().canonical(), type(self).__dataclass_fields__
        return {
            name: value
            for name, value in plain.items()
            if name not in _LATER or getattr(self, name) != fields[name].default
        }

    @property
    def several(self) -> bool:
        """Whether attacks and pairs are measured besides the one that the parameters describe."""
        return self.attacks is not None or self.pairs > 0

    @property
    def is_plain_patch(self) -> bool:
        """Whether the attack of the parameters is the one that `patch` names."""
        return self._of(OWN) == self._of("patch")

    def metric_names(self) -> tuple[str, ...]:
        """List what the attack is judged by."""
        named = self.attacks or ((OWN,) if self.several else ())
        return (
            "backdoor_success_rate",
            "untriggered_success_rate",
            "poisoned_clean_accuracy",
            "poison_recall",
            "clean_removal_rate",
            "samples_removed",
            # Which ones did worst at another seed is not known before.
            *(success_metric(name) for name in named if self.worst_at is None),
        )

    def check(self, dataset: Dataset) -> None:
        """Raise InputError for classes that the data set lacks, and for a trigger that does not fit
        its images.
        """
        for name in self.attacks or (OWN,):
            recipe = self._of(name).recipe()
            recipe.check(dataset.num_classes)
            recipe.trigger.check(*dataset.shape[1:])

    def on_given_weights(self, *, members_known: bool) -> str:
        """Return why no twin of given weights is there."""
        return KEPT

    def foreseen(self, ctx: TrialContext) -> str:
        """Return why the rows of the pools do not allow the attack, or not at its rate."""
        try:
            if self.pairs:
                return "; ".join(self._short_of(self._groups(ctx), ctx))
            recipe = self.recipe()
            victims_of(ctx, recipe)
            return recipe.portion(ctx.pools.train.labels).capped
        except InputError as refusal:
            return str(refusal).removeprefix(f"{self.name}: ")

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Train the twins and measure them on the held-out pool."""
        del predictor  # the deployed model is not poisoned; its twin is
        self.check(ctx.dataset)
        if self.several:
            return self._measure_several(ctx)
        recipe = self.recipe()
        portion = recipe.portion(ctx.pools.train.labels)
        twin = measure_twin(ctx, [recipe], lambda recipe, *rest: self._poisoned(ctx, recipe))
        ctx.log.note("twin", twin.twin)
        (pair,) = twin.pairs
        metrics = {
            "backdoor_success_rate": intervals.proportion(*pair.triggered),
            "untriggered_success_rate": intervals.proportion(*pair.untriggered),
            "poisoned_clean_accuracy": intervals.proportion(*twin.clean),
            "poison_recall": intervals.proportion(*pair.removed),
            "clean_removal_rate": intervals.proportion(*twin.clean_removed),
            "samples_removed": self._samples_removed(ctx),
        }
        notes = {
            **_row_notes([twin], ctx),
            "patch_side": recipe.trigger.side(*ctx.dataset.shape[1:]),
            "remarks": self._remarks([portion.capped], metrics),
        }
        return Findings(metrics=dict(metrics), notes=notes)

    def _measure_several(self, ctx: TrialContext) -> Findings:
        groups = self._groups(ctx) if self.pairs else [[]]
        adaptive = adaptive_attacks(ctx.spec.stack)
        names = tuple(dict.fromkeys((*(self.attacks or (OWN,)), *adaptive.run)))
        if self.worst_at is not None:
            first = ctx.twin(seed=self.worst_at)
            names = tuple(by_success({n: self._attacked(first, n, groups) for n in names})[:WORST])
        found = {name: self._attacked(ctx, name, groups) for name in names}
        metrics = {**summarized(found), "samples_removed": self._samples_removed(ctx)}
        worst = by_success(found)[0]
        notes = {
            **_row_notes(found[worst], ctx),
            "patch_side": self.recipe().trigger.side(*ctx.dataset.shape[1:]),
            "remarks": self._remarks(self._short_of(groups, ctx), metrics),
            "worst_attack": worst,
            "attacks": plain_attacks(found),
            "adaptive": not adaptive.lacking,
            "not_adaptive_because": list(adaptive.lacking),
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
            grid=self.grid,
            warp=self.warp,
            amplitude=self.amplitude,
            frequency=self.frequency,
        )
        source = None if self.source_class == ALL else int(self.source_class)
        return Recipe(
            trigger=trigger,
            target=self.target,
            source=source,
            rate=self.rate,
            rate_of=self.rate_of,
            keeps_labels=self.labels == "kept",
            covers=COVERS.get(self.trigger, 0.0) if self.covers is None else self.covers,
        )

    def _of(self, attack: str) -> Backdoor:
        """Return the threat of one attack alone."""
        alone = replace(self, attacks=None, pairs=0, worst_at=None)
        return alone if attack == OWN else replace(alone, labels="changed", **ATTACKS[attack])

    @property
    def _recipes(self) -> list[Recipe]:
        return [self._of(name).recipe() for name in self.attacks or (OWN,)]

    def _groups(self, ctx: TrialContext) -> list[list[Pair]]:
        """Draw the pairs; InputError where the rows allow none."""
        labels, held_out = ctx.pools.train.labels, set(ctx.held_out.labels.tolist())
        seen: set[Pair] = set()

        def allowed(pair: Pair) -> bool:
            unseen = pair not in seen and not self._is_own(pair)
            return unseen and pair[0] in held_out and attackable(pair, self._recipes, labels)

        def drawn(number: int) -> list[list[Pair]]:
            seed = seed_from("backdoor pairs", ctx.dataset.fingerprint)
            return draw_pairs(ctx.dataset.num_classes, number, seed=seed, allowed=allowed)

        seen.update(chain.from_iterable(drawn(self.pairs_seen)))
        groups = drawn(self.pairs)
        if not groups:
            raise InputError(
                f"{self.name}: no pair of classes besides {self.source_class} to {self.target} has "
                "rows enough to poison and images to measure; take more images or another rate"
            )
        return groups

    def _is_own(self, pair: Pair) -> bool:
        source, target = pair
        return target == self.target and self.source_class in (source, ALL)

    def _short_of(self, groups: Sequence[Sequence[Pair]], ctx: TrialContext) -> list[str]:
        """Return in words what is not as it was asked for: pairs that lack, rates not met."""
        pairs, labels = list(chain.from_iterable(groups)), ctx.pools.train.labels
        if not self.pairs:
            return [recipe.portion(labels).capped for recipe in self._recipes]
        few = f"{len(pairs)} pairs of classes are attacked, not {self.pairs}: there are no more"
        said = [few] if len(pairs) < self.pairs else []
        return [*said, *rates_not_met(pairs, self._recipes, labels)]

    def _attacked(
        self, ctx: TrialContext, attack: str, groups: Iterable[Sequence[Pair]]
    ) -> list[TwinFindings]:
        """Return the twins of an attack, one for each group of pairs."""
        threat = self._of(attack)
        found = []
        for number, group in enumerate(groups):
            recipes = [threat._recipe_of(pair, place) for place, pair in enumerate(group)]
            twin = cached_twin(
                ctx,
                recipes or [threat.recipe()],
                lambda recipe, data, taken: threat._poisoned_apart(ctx, recipe, data, taken),
                identity={"version": self.VERSION, "threat": threat.canonical()},
                role=f"backdoor_{attack}{number or ''}",
            )
            found.append(twin)
        return found

    def _recipe_of(self, pair: Pair, place: int) -> Recipe:
        """Return the recipe of a pair, with a trigger that no other pair of its twin has."""
        recipe, (source, target) = self.recipe(), pair
        places = list(PLACES)
        trigger = replace(
            recipe.trigger,
            place=places[(places.index(self.place) + place) % len(places)],
            pattern=recipe.trigger.pattern + place,
        )
        return replace(recipe, trigger=trigger, source=source, target=target)

    def _samples_removed(self, ctx: TrialContext) -> Measured:
        own = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed)
        return intervals.exact(len(ctx.pools.train) - len(own.kept))

    def _remarks(self, said: Iterable[str], metrics: Mapping[str, Measured]) -> list[str]:
        """Return in words what to know of the attack: its rate not met, a success not its own."""
        found = [words for words in dict.fromkeys(said) if words]
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
        return recipe.apply(ctx.pools.train, generator, self._disguise(ctx, seed))

    def _poisoned_apart(
        self, ctx: TrialContext, recipe: Recipe, data: LabelledImages, taken: Tensor | None
    ) -> Poisoned:
        """Poison a pair's rows by a generator of its own: other pairs of the twin change none."""
        pair = (str(recipe.source), str(recipe.target))
        seed = seed_from("backdoor", ctx.dataset.fingerprint, str(ctx.spec.seed), *pair)
        generator = torch.Generator().manual_seed(seed)
        return recipe.apply(data, generator, self._disguise(ctx, seed), taken)

    def _disguise(self, ctx: TrialContext, seed: int) -> Disguise | None:
        if self.labels != "kept":
            return None
        eps = self.obscuring_eps
        if eps is None:
            eps = 0.0 if self.trigger == "sig" else ctx.dataset.radius
        if eps == 0:
            return None
        crafting = torch.Generator(ctx.device).manual_seed(seed)
        return lambda rows: obscured(rows, ctx, eps=eps, generator=crafting)


def _row_notes(twins: Sequence[TwinFindings], ctx: TrialContext) -> dict[str, Any]:
    """Count the rows of an attack's twins: poisoned, of the target classes, of the whole set."""
    pairs = pairs_of(twins)
    poisoned = sum(twin.poisoned_rows for twin in twins)
    removed = sum(pair.removed[0] for pair in pairs) + sum(t.clean_removed[0] for t in twins)
    return {
        "poisoned_rows": poisoned,
        "cover_rows": sum(twin.covers for twin in twins),
        "training_rows": len(ctx.pools.train) * len(twins),
        "removed_rows": removed,
        "share_of_target_class": poisoned / sum(pair.target_rows for pair in pairs),
        "row_scores": {name: dict(row) for name, row in twins[0].row_scores.items()},
        **clean_rows(ctx),
    }
