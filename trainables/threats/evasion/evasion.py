"""Images changed within a ball so that the deployed model classifies them as something else.

Axes: N points, C channels, H, W, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainables.attacks import variant
from trainables.datasets import LabelledImages
from trainables.deployed.predictor import Predictor, ask
from trainables.errors import InputError
from trainables.metrics import at_eps, intervals
from trainables.parameters import PIXELS, parameter
from trainables.records.value import MetricValue
from trainables.threats.detection.signs import not_aware_because, rejection_indicators
from trainables.threats.evasion.attack_rows import distance_deciles, row_names, rows_of
from trainables.threats.evasion.attacking import Attacker
from trainables.threats.evasion.efforts import CORE, core_attacks, headline_of, settings_of
from trainables.threats.evasion.l2_curve import curve_names, l2_curve
from trainables.threats.evasion.masking import Indicator, verdict
from trainables.threats.evasion.masking_check import (
    audit_indicators,
    checked,
    screen_indicators,
)
from trainables.threats.evasion.pictures import pictures
from trainables.threats.evasion.points import points_for
from trainables.threats.evasion.robustness_curve import CURVE_NAMES, robustness_curve
from trainables.threats.evasion.run import Run
from trainables.threats.evasion.signs.outsiders import (
    attack_by_labels,
    by_labels_notes,
    outsider_signs,
)
from trainables.threats.evasion.target import Target, target_of
from trainables.threats.threat import Findings, Threat
from trainables.training.evaluation import in_batches
from trainables.trial.context import TrialContext

WHOLE, HEADLINE = "whole", "headline"


@dataclass(frozen=True, slots=True, eq=False)
class _ByLabels:
    """What an audit's attackers from outside found."""

    runs: dict[str, Run]
    """Runs on what still stood, of all points; not reported as attacks of their own."""
    signs: list[Indicator]
    notes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evasion(Threat):
    """Attack every surface of the predictor; a point counts as robust if no attack breaks it.

    The attacks are chosen by what the predictor is, not by the user: a random one is attacked
    through averaged draws, one that rejects by an attack that aims at being accepted as well, and
    every step without a gradient is passed backwards as the identity. Source: Tramer et al., 2020.
    """

    name = "evasion"
    meaning = "Images are changed a little so that they are misclassified."
    source = "Szegedy et al., 2014; Carlini et al., 2019"
    VERSION = 7

    attacks: tuple[str, ...] | None = parameter(
        None, kind="word", many=True,
        meaning="attacks besides those that the effort always runs; all are reported",
    )  # fmt: skip
    eps: tuple[float, ...] | None = parameter(
        None, kind="float", low=0.0, high=1.0, unit=PIXELS, many=True,
        meaning="further Linf radii at which the named attacks run, or all where none is named",
    )  # fmt: skip

    eps_l2: tuple[float, ...] | None = parameter(
        None, kind="float", low=1e-4, high=1000.0, unit="L2, pixel values of [0, 1]", many=True,
        meaning="L2 sizes at which accuracy under PGD and Carlini-Wagner is measured too",
    )  # fmt: skip
    points: int | None = parameter(
        None, kind="int", low=2, high=1_000_000, unit="images",
        meaning="points that are attacked, up to the effort's own limit",
    )  # fmt: skip
    extent: str = parameter(
        WHOLE, kind="word", words=(WHOLE, HEADLINE),
        meaning="whole: all that the effort measures; headline: what the robust accuracy at the "
        "standard Linf radius takes, AutoAttack of an audit with it, and the screen's signs of "
        "masking",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.named:
            variant(name)
        for name, sizes in (("eps", self.eps or ()), ("eps_l2", self.eps_l2 or ())):
            if len({at_eps("", size) for size in sizes}) < len(sizes):
                raise InputError(f"evasion: two of {name} are the same to four decimals; drop one")

    @property
    def named(self) -> tuple[str, ...]:
        """The attacks that were asked for by name."""
        return self.attacks or ()

    @property
    def whole(self) -> bool:
        """Whether everything is measured, not the headline alone."""
        return self.extent == WHOLE

    def canonical(self) -> dict[str, Any]:
        """Return name and parameters; the extent only where it says something, so that trials from
        before there was one keep their identity."""
        plain = super().canonical()
        return plain if not self.whole else {k: v for k, v in plain.items() if k != "extent"}

    def metric_names(self) -> tuple[str, ...]:
        """List what a screen of a plain predictor measures."""
        names = self._attacks(CORE["screen"])
        further = [
            at_eps(row, eps)
            for eps in self.eps or ()
            for name in self._at_further(names)
            for row in row_names(name)
        ]
        rows = [row for name in names for row in row_names(name)]
        if not self.whole:
            return ("robust_accuracy", "masking_suspected", *rows)
        return (
            "robust_accuracy", "robust_accuracy_l2", "masking_suspected",
            *CURVE_NAMES, *rows, *further, *curve_names(self.eps_l2 or ()),
        )  # fmt: skip

    def _measure(self, predictor: Predictor, ctx: TrialContext) -> Findings:
        """Attack the effort's points at the standard radii and, as a whole, at the further ones."""
        effort = ctx.spec.effort
        points = points_for(predictor, ctx, self.points)
        target = target_of(predictor, points, ctx)
        right = _right(predictor, points, ctx)
        attacker = Attacker(target, points, ctx, settings_of(effort, target))
        names = self._attacks(core_attacks(effort, target))
        runs = {name: attacker.run(name, eps=_radius(variant(name).norm, ctx)) for name in names}
        metrics: dict[str, MetricValue] = {}
        for name, run in runs.items():
            metrics |= rows_of(name, run, right, points, ctx)
        by_labels = self._by_labels(attacker, runs, right)
        counted = {**runs, **by_labels.runs}
        robust = _worst(counted, right, "linf")
        metrics["robust_accuracy"] = intervals.proportion(int(robust.sum()), len(points))
        further = Findings(metrics={})
        if self.whole:
            further = self._further(attacker, right, runs, counted)
        metrics |= further.metrics
        indicators = [*self._indicators(attacker, runs, robust), *by_labels.signs]
        check = verdict(indicators)
        metrics["masking_suspected"] = intervals.exact(float(check["suspected"]), len(points))
        notes = {
            "points": len(points),
            "extent": self.extent,
            "radius": ctx.dataset.radius,
            "radius_l2": ctx.dataset.radius_l2,
            "settings": {name: dict(attacker.settings.get(name, {})) for name in names},
            "broken_by": _broken_by(counted, right, "linf"),
            "masking": check,
            "not_finite_gradients": {
                name: {"gradients": run.gradients, "not_finite": run.not_finite}
                for name, run in runs.items()
                if run.not_finite
            },
            "pictures": pictures(runs["pgd"], predictor, points, ctx),
            **_adaptivity(target, indicators),
            **by_labels.notes,
            **further.notes,
        }
        return Findings(metrics=metrics, notes=notes, outcomes={"robust_accuracy": robust})

    def _attacks(self, core: tuple[str, ...]) -> tuple[str, ...]:
        return _joined(core if self.whole else headline_of(core), self.named)

    def _by_labels(self, attacker: Attacker, runs: dict[str, Run], right: Tensor) -> _ByLabels:
        """Attack by labels what still stands, and look for outsiders who break what none did."""
        points, ctx = attacker.points, attacker.ctx
        if ctx.spec.effort != "audit" or not self.whole:
            return _ByLabels({}, [], {})
        chosen = checked(points, ctx).to(ctx.device)
        standing = {norm: _worst(runs, right, norm) for norm in ("linf", "l2")}
        radii = {norm: _radius(norm, ctx) for norm in standing}
        found = attack_by_labels(attacker, runs, standing, chosen, radii)
        notes = {"by_labels": by_labels_notes(found, standing, chosen)}
        return _ByLabels(found, outsider_signs(runs, found, chosen), notes)

    def _further(
        self, attacker: Attacker, right: Tensor, runs: dict[str, Run], counted: dict[str, Run]
    ) -> Findings:
        """Measure what accompanies the headline: the L2 norm, the curves, the further radii."""
        points, ctx = attacker.points, attacker.ctx
        in_l2 = _worst(counted, right, "l2")
        metrics: dict[str, MetricValue] = {
            "robust_accuracy_l2": intervals.proportion(int(in_l2.sum()), len(points)),
            **robustness_curve(attacker, right, _worst(counted, right, "linf")),
        }
        for eps in self.eps or ():
            for name in self._at_further(tuple(runs)):
                run = attacker.run(name, eps=eps)
                rows = rows_of(name, run, right, points, ctx)
                metrics |= {at_eps(row, eps): value for row, value in rows.items()}
        by_size = l2_curve(attacker, right, self.eps_l2 or ())
        notes = {
            "broken_by_l2": _broken_by(counted, right, "l2"),
            "distance_deciles": {
                name: distance_deciles(run, right, points)
                for name, run in runs.items()
                if variant(name).minimum_norm
            },
            **by_size.notes,
        }
        return Findings(metrics=metrics | by_size.metrics, notes=notes)

    def _indicators(
        self, attacker: Attacker, runs: dict[str, Run], robust: Tensor
    ) -> list[Indicator]:
        found = screen_indicators(attacker, runs, robust)
        found += rejection_indicators(attacker, runs, robust)
        if attacker.ctx.spec.effort == "audit" and self.whole:
            found += audit_indicators(attacker, runs)
        return found

    def _at_further(self, names: tuple[str, ...]) -> tuple[str, ...]:
        asked = self.named or names
        return tuple(name for name in asked if _has_radius(name))


def _has_radius(name: str) -> bool:
    return variant(name).norm == "linf" and variant(name).in_ball


def _joined(core: tuple[str, ...], named: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*core, *named)))


def _radius(norm: str, ctx: TrialContext) -> float:
    return ctx.dataset.radius_l2 if norm == "l2" else ctx.dataset.radius


def _right(predictor: Predictor, points: LabelledImages, ctx: TrialContext) -> Tensor:
    generator = ctx.generator("evasion", "clean")
    classes = ctx.dataset.num_classes
    labels = in_batches(lambda x: ask(predictor, x, generator, classes).label, points)
    return labels.eq(points.labels)


def _worst(runs: dict[str, Run], right: Tensor, norm: str) -> Tensor:
    robust = right.clone()
    for name, run in runs.items():
        if variant(name).norm == norm:
            robust &= run.withstood
    return robust


def _broken_by(runs: dict[str, Run], right: Tensor, norm: str) -> list[str]:
    """Name for each point the first attack that broke it: `clean` where none was needed."""
    named = ["none" if fine else "clean" for fine in right.tolist()]
    for name, run in runs.items():
        if variant(name).norm == norm:
            for index in run.broken.nonzero().flatten().tolist():
                if named[index] == "none":
                    named[index] = name
    return named


def _adaptivity(target: Target, indicators: list[Indicator]) -> dict[str, Any]:
    """Return whether the attack knew the whole defense, and where it did not, what it missed."""
    failed = {indicator.name for indicator in indicators if indicator.failed}
    missed = []
    if target.predictor.rejects and not any(s.reject_margin for s in target.surfaces):
        missed.append("the detector gives no reject_margin, so no attack aims at being accepted")
    missed += not_aware_because(failed)
    if "zero_gradients" in failed:
        missed.append("no surface has a gradient; add one with a backward pass of its own (bpda)")
    if "surface_disagrees" in failed:
        missed.append("what is differentiated is not what is deployed; override surfaces() too")
    return {
        "adaptive": not missed,
        "not_adaptive_because": missed,
        "surfaces": [
            {"kind": s.kind, "draws": s.draws, "detector_aware": s.reject_margin is not None}
            for s in target.surfaces
        ],
        "stochastic": target.stochastic,
        "rejects": target.predictor.rejects,
        "undeclared_randomness": target.undeclared,
    }
