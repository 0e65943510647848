"""Running an attack on a deployed model, and judging what it made: no attack scores itself.

Axes: N points, C channels, H, W, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainables.attacks import Variant, variant
from trainables.attacks.autoattack import EOT_DRAWS as AUTOATTACK_DRAWS
from trainables.attacks.shared.rounding import grey_levels, rounded
from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.defenses import Stack, build_defense, build_stack
from trainables.deployed.predictor import (
    REFUSED,
    SMALLEST_LOG,
    Faults,
    Prediction,
    Predictor,
    Surface,
    ask,
    surface_scores,
)
from trainables.threats.evasion.run import Run, joined, lengths, withstands
from trainables.threats.evasion.target import Target
from trainables.trial.answer_cache import Question
from trainables.trial.context import TrialContext

BATCH = 256
_TOLERANCE = 1e-6
"""Tolerance of the ball and the pixel range, in float32."""
Settings = Mapping[str, Mapping[str, Any]]
"""Variant -> its keywords; what is not named runs with the attack's own defaults."""


@dataclass(slots=True, eq=False)
class _Gradients:
    """Counts gradients on their device: to look at each would wait for it."""

    taken: int = 0
    _not_finite: Tensor | None = None

    def watch(self, images: Tensor) -> None:
        """Count each gradient that is taken in images (B, C, H, W), if one can be."""
        if images.requires_grad:
            images.register_hook(self._note)  # type: ignore[no-untyped-call]

    def _note(self, gradient: Tensor) -> None:
        found = (~gradient.isfinite()).flatten(1).any(1).sum()
        self.taken += len(gradient)
        self._not_finite = found if self._not_finite is None else self._not_finite + found

    @property
    def not_finite(self) -> int:
        """Gradients that were not finite; waits once."""
        return 0 if self._not_finite is None else int(self._not_finite)


@dataclass(frozen=True)
class _Asked(Question[Run]):
    """What an attack does to points within a radius."""

    predictor: Predictor
    attack: str
    eps: float
    settings: str
    points: str
    """Hash of their content."""
    deployment: str


@dataclass(frozen=True, slots=True, eq=False)
class Attacker:
    """Runs attacks on a target: on which points, and with which settings."""

    target: Target
    points: LabelledImages
    ctx: TrialContext
    settings: Settings

    def on(self, rows: Tensor) -> Attacker:
        """Return the attacker of some of the points (R,)."""
        return replace(self, points=self.points.select(rows))

    def with_settings(self, settings: Settings) -> Attacker:
        """Return the attacker with other settings."""
        return replace(self, settings=settings)

    def of(self, target: Target) -> Attacker:
        """Return the attacker of another target."""
        return replace(self, target=target)

    def run(self, name: str, *, eps: float) -> Run:
        """Run an attack on every surface and keep, image by image, what broke the deployed model.

        A score-only attack asks the deployed model itself, a transfer attack a surrogate. `eps` is
        the radius; a minimum-norm attack is broken off by none, and its images count as broken
        within it. What another threat of the trial has run before is not run again: it would find
        the same.
        """
        if self.target.changed:
            return self._run(name, eps)
        question = _Asked(
            self.target.predictor,
            name,
            eps,
            json.dumps(self.settings.get(name, {}), sort_keys=True),
            content_hash(self.points),
            self.ctx.deployment,
        )
        return self.ctx.answered.answer(question, lambda: self._seeded(name, eps))

    def _seeded(self, name: str, eps: float) -> Run:
        """Run it with seeds of its own: whichever threat asks first, it finds the same."""
        with self.ctx.seeded(f"{name}:{eps:.9f}"):
            return self._run(name, eps)

    def _run(self, name: str, eps: float) -> Run:
        whole: Run | None = None
        chosen, faults, gradients = variant(name), Faults(), _Gradients()
        for number, surface in enumerate(self._to_attack(chosen, faults)):
            generator = self.ctx.generator("evasion", name, f"{eps:.9f}", str(number))
            # What one surface broke need not be broken again.
            rows = None if whole is None else whole.withstood.nonzero().flatten()
            if rows is not None and len(rows) == 0:
                break
            attacked = self.points if rows is None else self.points.select(rows)
            on_surface = _OnSurface(self, name, chosen, eps, surface, generator, faults, gradients)
            run = on_surface.run(attacked)
            whole = run if whole is None or rows is None else whole.with_rows(rows, run)
        if whole is None:
            raise RuntimeError(f"{type(self.target.predictor).__name__} has no surface to attack")
        return replace(whole, gradients=gradients.taken, not_finite=gradients.not_finite)

    def _to_attack(self, chosen: Variant, faults: Faults) -> tuple[Surface, ...]:
        surfaces, sees = self.target.surfaces, chosen.entry.sees
        if sees == "scores":

            def deployed(x: Tensor, generator: torch.Generator) -> Tensor:
                classes = self.ctx.dataset.num_classes
                return ask(self.target.predictor, x, generator, classes, faults).log_probabilities

            return (Surface(deployed, "exact"),)
        if sees == "labels":

            def labels(x: Tensor, generator: torch.Generator) -> Tensor:
                classes = self.ctx.dataset.num_classes
                return label_scores(ask(self.target.predictor, x, generator, classes, faults))

            return (Surface(labels, "exact"),)
        if sees == "detector":
            aimed = tuple(surface for surface in surfaces if surface.reject_margin is not None)
            return aimed or surfaces
        if sees == "surrogate":  # what it makes does not depend on the surface
            return surfaces[:1]
        # The cheap ones first: what they leave standing is all that the dear ones attack.
        return tuple(sorted(surfaces, key=lambda surface: surface.draws))


@dataclass(frozen=True, slots=True, eq=False)
class _OnSurface:
    """One attack on one surface."""

    attacker: Attacker
    name: str
    chosen: Variant
    eps: float
    surface: Surface
    generator: torch.Generator
    faults: Faults
    gradients: _Gradients

    def run(self, points: LabelledImages) -> Run:
        parts = []
        for start in range(0, len(points), BATCH):
            rows = slice(start, start + BATCH)
            parts.append(self._on_batch(points.images(rows), points.labels[rows]))
        return joined(parts)

    def _on_batch(self, x: Tensor, y: Tensor) -> Run:
        keywords = self._keywords(x)
        attacked = self.chosen.function(self._scores, x, y, generator=self.generator, **keywords)
        attacked = attacked.detach()
        self.faults.check()  # once, since each look waits for the device
        self._check(attacked, x, keywords)
        run = self._judged(attacked, x, y, keywords)
        return self._as_files(run, x, y, keywords) if self._rounds else run

    def _judged(self, attacked: Tensor, x: Tensor, y: Tensor, keywords: Mapping[str, Any]) -> Run:
        """Ask the deployed model about what the attack made of images."""
        with torch.no_grad():
            surface_fooled = self._scores(attacked).argmax(1) != y
        predictor, classes = self.attacker.target.predictor, self._num_classes
        answer = ask(predictor, attacked, self.generator, classes, self.faults)
        self.faults.check()
        withstood = withstands(answer, y)
        if self.chosen.minimum_norm:
            withstood = withstood | (lengths(attacked - x, "l2") > self.eps)
        nll = -answer.log_probabilities.gather(1, y[:, None]).squeeze(1).clamp_min(SMALLEST_LOG)
        fooled = answer.log_probabilities.argmax(1) != y
        rounded = keywords.get("by_rounding", torch.zeros_like(fooled))
        return Run(
            adversarial=attacked,
            withstood=withstood,
            fooled=fooled,
            disagrees=surface_fooled & ~fooled,
            nll=nll,
            by_rounding=rounded & ~withstood,
            queries=keywords.get("queries"),
        )

    @property
    def _rounds(self) -> bool:
        """Whether images are also tried rounded as a file holds them, which is what an attacker
        submits: where a detector may look for what no file holds. A random model would give each
        image another draw.
        """
        target = self.attacker.target
        aware = self.chosen.entry.sees == "detector"  # it rounds its iterates itself
        return (
            target.predictor.rejects and not target.stochastic and self.chosen.in_ball and not aware
        )

    def _as_files(self, run: Run, x: Tensor, y: Tensor, keywords: Mapping[str, Any]) -> Run:
        made, norm = run.adversarial, self.chosen.norm
        for level in grey_levels(self.attacker.points.scale):
            held = rounded(made, x, level, norm=norm, eps=self.eps)
            self._check(held, x, keywords)
            found = self._judged(held, x, y, {})
            run = run.improved(replace(found, by_rounding=found.broken))
        return run

    @property
    def _num_classes(self) -> int:
        return self.attacker.ctx.dataset.num_classes

    def _scores(self, images: Tensor) -> Tensor:
        classes = self._num_classes
        self.gradients.watch(images)
        return surface_scores(self.surface, images, self.generator, classes, self.faults)

    def _keywords(self, x: Tensor) -> dict[str, Any]:
        """Return the keywords of a call: fixed ones, settings, and what only the runner knows."""
        chosen, target = self.chosen, self.attacker.target
        keywords = {**chosen.fixed, **self.attacker.settings.get(self.name, {})}
        if chosen.in_ball:
            keywords["eps"] = self.eps
        if chosen.takes("queries"):
            keywords["queries"] = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if chosen.entry.sees == "surrogate":
            keywords["surrogate"] = surrogate_scores(chosen, self.attacker.ctx)
        if chosen.takes("stochastic"):
            keywords["stochastic"] = target.stochastic
            keywords["eot_draws"] = _autoattack_draws(self.surface)
        if target.stochastic and chosen.takes("early_stop"):
            # One draw that is fooled proves nothing: all steps are taken.
            keywords["early_stop"] = False
        rejecting = self.surface.reject_margin
        if chosen.entry.sees == "detector" and rejecting is not None:
            keywords["reject_margin"] = lambda images: rejecting(images, self.generator)
            keywords["levels"] = grey_levels(self.attacker.points.scale)
            keywords["by_rounding"] = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return keywords

    def _check(self, attacked: Tensor, x: Tensor, keywords: Mapping[str, Any]) -> None:
        """Raise RuntimeError where the images are not inside their ball and pixel range."""
        if attacked.shape != x.shape:
            raise RuntimeError(f"{self.name} made {tuple(attacked.shape)} of {tuple(x.shape)}")
        limit, norm = float("inf"), self.chosen.norm
        if self.chosen.in_ball:
            limit = self.eps
        elif norm == "l0":
            limit = keywords.get("pixels", x[0, 0].numel())
        longest = lengths(attacked - x, norm).max()
        low, high, far = torch.stack([attacked.min(), attacked.max(), longest]).tolist()
        # NaN fails here too. Norms of float32 are rounded in proportion to their size.
        if not (far <= limit + _TOLERANCE * max(1.0, limit) and low >= 0 and high <= 1):
            raise RuntimeError(
                f"{self.name} left its ball: it moved by {far:.6g} of {limit:.6g} ({norm}), "
                f"range [{low}, {high}]"
            )


def label_scores(answer: Prediction) -> Tensor:
    """Return scores (B, K) that say no more than the deployed labels do.

    The label has a score of 1; of an image that a detector rejects all are equal. An abstention,
    which refuses every label, says the likeliest one.
    """
    likeliest = answer.log_probabilities.argmax(1)
    label = torch.where(answer.label == REFUSED, likeliest, answer.label)
    scores = torch.zeros_like(answer.log_probabilities).scatter(1, label[:, None], 1.0)
    if answer.reject_score is None:
        return scores
    return scores.masked_fill((answer.label == REFUSED)[:, None], 0.0)


def _autoattack_draws(surface: Surface) -> int:
    """Return the draws that AutoAttack averages a random model's surface over.

    One that averages draws itself need not be averaged over as many again, and one of a single draw
    draws nothing at all: `target_of` has seen to that.
    """
    return 1 if surface.draws == 1 else max(1, AUTOATTACK_DRAWS // surface.draws)


def surrogate_scores(chosen: Variant, ctx: TrialContext) -> Callable[[Tensor], Tensor]:
    """Return the scores of the model that a transfer attack makes its images on."""
    stack, seed = ctx.spec.stack, ctx.spec.seed + 1
    if chosen.surrogate == "undefended":
        stack, seed = Stack(), ctx.spec.seed
    if chosen.surrogate == "hardened":
        raw = {"eps": "1 radius"}
        stack = build_stack(
            [build_defense("pgd_adversarial_training", raw, radius=ctx.dataset.radius)]
        )
    role = f"surrogate_{chosen.surrogate}"
    surrogate = ctx.train(stack, ctx.pools.train, seed, role=role, deployed=False).model
    surrogate.requires_grad_(False)
    return lambda images: surrogate(images)
