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
from trainables.datasets import LabelledImages
from trainables.datasets.images import content_hash
from trainables.defenses import Stack
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
from trainables.trial.context import TrialContext

BATCH = 256
EOT_DRAWS = 10
"""Draws that a gradient is averaged over where a random predictor's surface declares none."""
_TOLERANCE = 1e-6
"""Tolerance of the ball and the pixel range, in float32."""
Settings = Mapping[str, Mapping[str, Any]]
"""Variant -> its keywords; what is not named runs with the attack's own defaults."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A deployed model as the attacker who knows it sees it."""

    predictor: Predictor
    surfaces: tuple[Surface, ...]
    stochastic: bool
    """Whether it answers one image differently, declared or found out."""
    undeclared: bool
    """Whether that had to be found out."""
    changed: bool = False
    """Whether the surfaces are not the predictor's own, so that nothing found before holds."""


def target_of(predictor: Predictor, points: LabelledImages, ctx: TrialContext) -> Target:
    """Look at the predictor: its surfaces, and whether it is random, whatever it says.

    A random surface that averages nothing is averaged over fresh draws (EOT; Athalye et al., 2018).
    """
    x, classes = points.images(slice(0, min(len(points), BATCH))), ctx.dataset.num_classes

    def differs(answer: Callable[[Tensor, torch.Generator], Tensor]) -> bool:
        with torch.no_grad():
            first, second = (answer(x, ctx.generator("look", draw)) for draw in ("one", "two"))
        # As AutoAttack's own check has it: rounding on a GPU is not randomness.
        return not torch.allclose(first, second, rtol=0, atol=1e-4)

    random = differs(lambda x, g: ask(predictor, x, g, classes).log_probabilities)
    surfaces = tuple(
        _averaged(surface) if surface.draws == 1 and differs(surface.scores) else surface
        for surface in predictor.surfaces()
    )
    stochastic = predictor.stochastic or random
    return Target(predictor, surfaces, stochastic, random and not predictor.stochastic)


def _averaged(surface: Surface) -> Surface:
    def scores(x: Tensor, generator: torch.Generator) -> Tensor:
        draws = [surface.scores(x, generator).log_softmax(1) for _ in range(EOT_DRAWS)]
        return torch.stack(draws).logsumexp(0)

    kind = "eot" if surface.kind == "exact" else surface.kind
    return replace(surface, scores=scores, kind=kind, draws=EOT_DRAWS)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one attack did: on the surface that suffered most, image by image."""

    adversarial: Tensor
    """(N, C, H, W)"""
    withstood: Tensor
    """(N,) whether the deployed model answers it right, or a detector rejects it."""
    fooled: Tensor
    """(N,) whether the deployed model classifies it wrong, be it rejected or not."""
    disagrees: Tensor
    """(N,) whether every surface was fooled by its own image and the deployed model was not."""
    nll: Tensor
    """(N,) negative log-likelihood of the true class, as deployed, in nats."""
    queries: Tensor | None = None
    """(N,) times that a score-only attack asked for an image's scores."""

    @property
    def broken(self) -> Tensor:
        """(N,) whether the attack succeeds against the deployed model."""
        return ~self.withstood


def run_attack(
    name: str,
    target: Target,
    points: LabelledImages,
    ctx: TrialContext,
    settings: Settings,
    *,
    eps: float,
) -> Run:
    """Run an attack on every surface and keep, image by image, what broke the deployed model.

    A score-only attack asks the deployed model itself, a transfer attack a surrogate. `eps` is the
    radius; a minimum-norm attack is broken off by none, and its images count as broken within it.
    What another threat of the trial has run before is not run again: it would find the same.
    """
    asked = json.dumps(settings.get(name, {}), sort_keys=True)
    key = (target.predictor, name, eps, asked, content_hash(points), ctx.deployment)
    if target.changed:
        return _run_attack(name, target, points, ctx, settings, eps)
    if key not in ctx.runs:
        ctx.runs[key] = _run_attack(name, target, points, ctx, settings, eps)
    found: Run = ctx.runs[key]
    return found


def _run_attack(
    name: str,
    target: Target,
    points: LabelledImages,
    ctx: TrialContext,
    settings: Settings,
    eps: float,
) -> Run:
    whole: Run | None = None
    faults = Faults()
    for number, surface in enumerate(_to_attack(variant(name), target, ctx, faults)):
        generator = ctx.generator("evasion", name, f"{eps:.9f}", str(number))
        # What one surface broke need not be broken again.
        rows = None if whole is None else whole.withstood.nonzero().flatten()
        if rows is not None and len(rows) == 0:
            break
        attacked = points if rows is None else points.select(rows)
        run = _on_surface(name, surface, target, attacked, ctx, settings, eps, generator, faults)
        whole = run if whole is None or rows is None else _with_rows(whole, rows, run)
    if whole is None:
        raise RuntimeError(f"{type(target.predictor).__name__} has no surface to attack")
    return whole


def _on_surface(
    name: str,
    surface: Surface,
    target: Target,
    points: LabelledImages,
    ctx: TrialContext,
    settings: Settings,
    eps: float,
    generator: torch.Generator,
    faults: Faults,
) -> Run:
    parts = []
    for start in range(0, len(points), BATCH):
        rows = slice(start, start + BATCH)
        x, y = points.images(rows), points.labels[rows]
        parts.append(_on_batch(name, surface, target, x, y, ctx, settings, eps, generator, faults))
    return Run(
        torch.cat([part.adversarial for part in parts]),
        torch.cat([part.withstood for part in parts]),
        torch.cat([part.fooled for part in parts]),
        torch.cat([part.disagrees for part in parts]),
        torch.cat([part.nll for part in parts]),
        _joined([part.queries for part in parts]),
    )


def _to_attack(
    chosen: Variant, target: Target, ctx: TrialContext, faults: Faults
) -> tuple[Surface, ...]:
    if chosen.score_only:

        def deployed(x: Tensor, generator: torch.Generator) -> Tensor:
            classes = ctx.dataset.num_classes
            return ask(target.predictor, x, generator, classes, faults).log_probabilities

        return (Surface(deployed, "exact"),)
    if chosen.takes("reject_margin"):
        aimed = tuple(surface for surface in target.surfaces if surface.reject_margin is not None)
        return aimed or target.surfaces
    if chosen.takes("surrogate"):  # what it makes does not depend on the surface
        return target.surfaces[:1]
    # The cheap ones first: what they leave standing is all that the dear ones attack.
    return tuple(sorted(target.surfaces, key=lambda surface: surface.draws))


def _on_batch(
    name: str,
    surface: Surface,
    target: Target,
    x: Tensor,
    y: Tensor,
    ctx: TrialContext,
    settings: Settings,
    eps: float,
    generator: torch.Generator,
    faults: Faults,
) -> Run:
    chosen, num_classes = variant(name), ctx.dataset.num_classes

    def scores(images: Tensor) -> Tensor:
        return surface_scores(surface, images, generator, num_classes, faults)

    keywords: dict[str, Any] = {**chosen.fixed, **settings.get(name, {})}
    queries = None
    if chosen.takes("eps"):
        keywords["eps"] = eps
    if chosen.takes("queries"):
        queries = keywords["queries"] = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if chosen.takes("surrogate"):
        keywords["surrogate"] = surrogate_scores(chosen, ctx)
    if chosen.takes("stochastic"):
        keywords["stochastic"] = target.stochastic
        keywords["eot_draws"] = _autoattack_draws(surface)
    if target.stochastic and chosen.takes("early_stop"):
        # One draw that is fooled proves nothing: all steps are taken.
        keywords["early_stop"] = False
    if chosen.takes("reject_margin") and surface.reject_margin is not None:
        rejecting = surface.reject_margin
        keywords["reject_margin"] = lambda images: rejecting(images, generator)
    attacked = chosen.function(scores, x, y, generator=generator, **keywords).detach()
    faults.check()  # once, since each look waits for the device
    _check(name, chosen, attacked, x, eps, keywords)
    with torch.no_grad():
        surface_fooled = scores(attacked).argmax(1) != y
    answer = ask(target.predictor, attacked, generator, num_classes, faults)
    faults.check()
    withstood = withstands(answer, y)
    if chosen.minimum_norm:
        withstood = withstood | (lengths(attacked - x, "l2") > eps)
    nll = -answer.log_probabilities.gather(1, y[:, None]).squeeze(1).clamp_min(SMALLEST_LOG)
    fooled = answer.log_probabilities.argmax(1) != y
    return Run(attacked, withstood, fooled, surface_fooled & ~fooled, nll, queries)


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
    role = f"surrogate_{chosen.surrogate}"
    surrogate = ctx.train(stack, ctx.pools.train, seed, role=role, deployed=False).model
    surrogate.requires_grad_(False)
    return lambda images: surrogate(images)


def _with_rows(first: Run, rows: Tensor, second: Run) -> Run:
    """Put what a second run made of the rows (R,) that withstood the first in their places."""

    def put(before: Tensor, after: Tensor) -> Tensor:
        return before.index_copy(0, rows, after)

    return Run(
        put(first.adversarial, second.adversarial),
        put(first.withstood, second.withstood),
        put(first.fooled, second.fooled),
        put(first.disagrees, first.disagrees[rows] & second.disagrees),
        put(first.nll, second.nll),
        first.queries,
    )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def lengths(delta: Tensor, norm: str) -> Tensor:
    """Return the length (N,) of perturbations: linf, l2, or l0 as the number of changed pixels."""
    if norm == "l0":
        return delta.ne(0).any(1).flatten(1).sum(1).to(delta.dtype)
    flat = delta.flatten(1)
    found: Tensor = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
    return found


def _check(
    name: str,
    chosen: Variant,
    attacked: Tensor,
    x: Tensor,
    eps: float,
    keywords: Mapping[str, Any],
) -> None:
    """Raise RuntimeError where an attack's images are not inside their ball and pixel range."""
    if attacked.shape != x.shape:
        raise RuntimeError(f"{name} made {tuple(attacked.shape)} of {tuple(x.shape)}")
    limit = float("inf")
    if chosen.takes("eps"):
        limit = eps
    elif chosen.norm == "l0":
        limit = keywords.get("pixels", x[0, 0].numel())
    longest = lengths(attacked - x, chosen.norm).max()
    low, high, far = torch.stack([attacked.min(), attacked.max(), longest]).tolist()
    # NaN fails here too. Norms of float32 are rounded in proportion to their size.
    if not (far <= limit + _TOLERANCE * max(1.0, limit) and low >= 0 and high <= 1):
        raise RuntimeError(
            f"{name} left its ball: it moved by {far:.6g} of {limit:.6g} ({chosen.norm}), "
            f"range [{low}, {high}]"
        )


def withstands(answer: Prediction, labels: Tensor) -> Tensor:
    """Return where an attack fails (N,): the answer is right, or a detector rejects the image.

    An abstention (no label, and no score to reject by) is wrong, as it is everywhere.
    """
    right = answer.label == labels
    if answer.reject_score is None:
        return right
    return right | (answer.label == REFUSED)
