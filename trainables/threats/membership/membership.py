"""Who reads from the deployed model's answers which rows were given to its training.

Axes: P members and then non-members, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.metrics import intervals
from trainables.metrics.membership import KEPT_ROWS, MEMBERSHIP_ATTACKS, auc_metric
from trainables.parameters import parameter
from trainables.records.value import MetricValue, Missing
from trainables.storage.identity import seed_from
from trainables.threats.membership import lira
from trainables.threats.membership.choice import (
    Classes,
    best_directed,
    strongest_auc,
    strongest_balanced,
    strongest_rate,
)
from trainables.threats.membership.kept import Kept, kept_rows
from trainables.threats.membership.label_only import SIZES, Work, affordable, label_only
from trainables.threats.membership.rates import Scored, histogram
from trainables.threats.membership.rmia import fitted_a, relative_probability, rmia
from trainables.threats.membership.scores import (
    Floats,
    Integers,
    entropy,
    loss_threshold,
    modified_entropy,
    of_true_class,
    softmax,
)
from trainables.threats.membership.shadow_classifier import shadow_classifier
from trainables.threats.membership.shadows import ShadowAnswers, population, shadow_answers
from trainables.threats.membership.sides import Sides, sides_of
from trainables.threats.threat import Findings, Threat
from trainables.trial.context import TrialContext

OF_ANSWERS: Mapping[str, Callable[[Floats, Integers], Floats]] = {
    "loss_threshold": loss_threshold,
    "entropy": entropy,
    "modified_entropy": modified_entropy,
}
"""Attacks that need the deployed log-probabilities (P, K) and the labels (P,)."""
LABEL_ONLY = "label_only"
_MOST = 5000
"""Rows of each side that are asked by default."""
_SHADOWS = 16
"""Shadow models of an audit, or of a named attack, by default."""
_NO_MEMBERS = (
    "the given weights were trained on none of these images: nobody's membership can be told"
)
_NO_SHADOWS = "it compares with shadow models, and nothing is trained like given weights"
_RATES = {"tpr_at_fpr_0_01": 0.01, "tpr_at_fpr_0_001": 0.001}


def _lira_online(answers: Floats, labels: Integers, shadows: ShadowAnswers) -> Floats:
    of_shadows = lira.phi(shadows.log_probabilities, labels)
    return lira.online(lira.phi(answers, labels), of_shadows, shadows.inside)


def _lira_offline(answers: Floats, labels: Integers, shadows: ShadowAnswers) -> Floats:
    of_shadows = lira.phi(shadows.log_probabilities, labels)
    return lira.offline(lira.phi(answers, labels), of_shadows, shadows.inside)


def _rmia(answers: Floats, labels: Integers, shadows: ShadowAnswers) -> Floats:
    """Compare with all points that are asked: the attacker does not know which are members."""
    own = of_true_class(softmax(answers), labels)
    of_shadows = of_true_class(softmax(shadows.log_probabilities), labels)
    a = fitted_a(of_shadows, shadows.inside)
    ratios = relative_probability(own, of_shadows, shadows.inside, a)
    return rmia(ratios, ratios)


def _shadow(answers: Floats, labels: Integers, shadows: ShadowAnswers) -> Floats:
    return shadow_classifier(answers, shadows.log_probabilities, shadows.inside, labels)


OF_SHADOWS: Mapping[str, Callable[[Floats, Integers, ShadowAnswers], Floats]] = {
    "shadow": _shadow,
    "lira_online": _lira_online,
    "lira_offline": _lira_offline,
    "rmia": _rmia,
}
"""Attacks that need the answers of shadow models too."""
CHEAP = (*OF_ANSWERS, LABEL_ONLY)
"""Attacks that need no further training."""


@dataclass(frozen=True, kw_only=True)
class Membership(Threat):
    """Score members and non-members by every attack of the effort; the strongest counts.

    Members are the rows given to the stack, before its filters, for every attack; non-members are
    the held-out pool. What a filter dropped was given away too, and the rows that it kept differ
    from unseen ones by its choice: their own figure meets unseen rows that it would keep. A screen
    runs what needs no further training; an audit trains shadow models under the same
    stack and deployment, so that its attacks know the defense. Scores that order the rows the
    wrong way round leak as much, so the strongest is the one whose area is farthest from 0.5,
    chosen and turned on one half of the rows for the figure of the other. The headline's interval
    allows for the choice among m attacks: each one's is of level 1 - 0.05 / m.
    An image is asked once; a rejected one has log-probabilities too, but no label.
    """

    name = "membership"
    meaning = "An attacker infers from the model's answers which rows it was trained on."
    source = "Yeom et al., 2018; Carlini et al., 2022"
    VERSION = 4

    attacks: tuple[str, ...] | None = parameter(
        None, kind="word", words=tuple(MEMBERSHIP_ATTACKS), many=True,
        meaning="attacks that run; by default all that need no shadow models, and in an audit the "
        "others too",
    )  # fmt: skip
    shadows: int | None = parameter(
        None, kind="int", low=0, high=1000, unit="models",
        meaning="shadow models of an audit, or of named attacks that need them, an even number; by "
        "default 16",
    )  # fmt: skip
    points: int | None = parameter(
        None, kind="int", low=10, high=1_000_000, unit="rows",
        meaning="most members, and most non-members, that are asked; by default 5,000",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shadows is not None and self.shadows % 2:
            raise InputError(
                f"membership: shadows must be even, since every row is in half of them, but got "
                f"{self.shadows}"
            )
        needing = [name for name in self._named if name in OF_SHADOWS]
        if self.shadows == 0 and needing:
            raise InputError(f"membership: {needing[0]} needs shadow models; leave out shadows: 0")
        if self.shadows and self._named and not needing:
            raise InputError("membership: none of the named attacks uses shadows; leave them out")

    @property
    def _named(self) -> tuple[str, ...]:
        return self.attacks or ()

    def attacks_at(self, effort: str) -> tuple[str, ...]:
        """List the attacks that run at an effort, in the order of their declaration."""
        with_shadows = effort == "audit" and self.shadows != 0
        chosen = self._named or (*CHEAP, *(OF_SHADOWS if with_shadows else ()))
        return tuple(name for name in MEMBERSHIP_ATTACKS if name in chosen)

    def metric_names(self) -> tuple[str, ...]:
        """List what a screen measures."""
        areas = (auc_metric(name) for name in self.attacks_at("screen"))
        return ("membership_auc", KEPT_ROWS, "membership_balanced_accuracy", *_RATES, *areas)

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Run the effort's attacks on the same members and non-members."""
        sides = sides_of(ctx, self.points or _MOST)
        answers = sides.log_probabilities(predictor, ctx)
        names, left_out = self._possible(ctx)
        scored = {
            name: sides.split(OF_ANSWERS[name](answers, sides.labels))
            for name in names
            if name in OF_ANSWERS
        }
        notes: dict[str, Any] = {"members": len(sides.members), "non_members": len(sides.others)}
        if LABEL_ONLY in names:
            passes = predictor.forward_passes_per_prediction
            work = affordable(ctx.spec.effort, passes, len(sides.members) + len(sides.others))
            scored[LABEL_ONLY] = _by_labels(predictor, sides.fewer(work.points), work, ctx)
            notes[LABEL_ONLY] = {
                "copies": work.copies,
                "members": len(scored[LABEL_ONLY].members),
                "non_members": len(scored[LABEL_ONLY].others),
                "noise_in_radii": list(SIZES[: work.copies]),
            }
        of_shadows = [name for name in names if name in OF_SHADOWS]
        if of_shadows:
            number = self.shadows or _SHADOWS
            shadows = shadow_answers(ctx, population(ctx), sides.in_population(ctx), number)
            for name in of_shadows:
                scored[name] = sides.split(OF_SHADOWS[name](answers, sides.labels, shadows))
            notes["shadows"] = {
                "models": number,
                "rows": shadows.rows,
                "rows_of_the_attacked": len(ctx.pools.train),
                "one_spread_for_all": number < lira.FEWEST_FOR_OWN_SPREAD,
            }
        ordered = {name: scored[name] for name in names}
        generator = np.random.default_rng(seed_from(ctx.deployment, self.name, "halves"))
        train, held_out = (x.labels.cpu().numpy() for x in (ctx.pools.train, ctx.held_out))
        metrics = _metrics(ordered, generator, (train, held_out))
        trained = ctx.train(ctx.spec.stack, ctx.pools.train, ctx.spec.seed)
        metrics[KEPT_ROWS], of_kept = _of_kept(
            kept_rows(trained, ctx), ordered, generator, (train, held_out)
        )
        metrics |= {auc_metric(name): Missing(_NO_SHADOWS) for name in left_out}
        return Findings(metrics=metrics, notes=notes | of_kept | _notes_of(ordered))

    def on_given_weights(self, *, members_known: bool) -> str:
        """Return why there is nobody to tell apart."""
        return "" if members_known else _NO_MEMBERS

    def foreseen(self, ctx: TrialContext) -> str:
        """Return which of its attacks given weights do not allow."""
        return _NO_SHADOWS if ctx.spec.model.weights else ""

    def _possible(self, ctx: TrialContext) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the effort's attacks, and those of them that given weights do not allow."""
        names = self.attacks_at(ctx.spec.effort)
        if not ctx.spec.model.weights:
            return names, ()
        left_out = tuple(name for name in names if name in OF_SHADOWS)
        if len(left_out) == len(names):
            raise InputError(_NO_SHADOWS)
        return tuple(name for name in names if name not in left_out), left_out


def _by_labels(predictor: Predictor, sides: Sides, work: Work, ctx: TrialContext) -> Scored:
    """Run the label-only attack on both sides."""
    generator = ctx.generator("membership", LABEL_ONLY)
    asked = (sides.members, sides.others)
    members, others = (label_only(predictor, x, work.copies, ctx, generator) for x in asked)
    return sides.scored(members, others)


def _metrics(
    scored: Mapping[str, Scored], generator: np.random.Generator, classes: Classes
) -> dict[str, MetricValue]:
    areas = {auc_metric(name): intervals.auc(s.members, s.others) for name, s in scored.items()}
    return {
        "membership_auc": strongest_auc(scored, generator, classes),
        "membership_balanced_accuracy": strongest_balanced(scored, generator, classes),
        **{rate: strongest_rate(scored, fpr) for rate, fpr in _RATES.items()},
        **areas,
    }


def _of_kept(
    kept: Kept | None,
    scored: Mapping[str, Scored],
    generator: np.random.Generator,
    classes: Classes,
) -> tuple[MetricValue, dict[str, Any]]:
    """Return the headline of the rows that the filters keep, and how many those are."""
    if kept is None:
        return Missing("no filter of the stack dropped a row"), {}
    alone = {name: rows for name, each in scored.items() if (rows := kept.of(each))}
    if not alone:
        return Missing("the filters of the stack keep no row of one of the sides"), {}
    most = max(alone.values(), key=lambda rows: len(rows.members))
    notes = {"members": len(most.members), "non_members": len(most.others)}
    return strongest_auc(alone, generator, classes), {"kept_rows": notes}


def _notes_of(scored: Mapping[str, Scored]) -> dict[str, Any]:
    """Name the strongest attack on all rows, and show its scores."""
    top, turned = best_directed(scored)
    values = {name: intervals.auc(s.members, s.others).value for name, s in scored.items()}
    return {
        "attack": top,
        "turned_round": turned,
        "attacks": values,
        "scores": histogram(scored[top].turned() if turned else scored[top]),
    }
