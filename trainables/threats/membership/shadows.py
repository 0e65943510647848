"""Shadow models: trained and deployed as the attacked one was, on known parts of the data.

Axes: S shadow models, P points of the population, N points that are asked, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.datasets import LabelledImages, stratified_subset
from trainables.datasets.images import content_hash
from trainables.storage.artefacts import Artefact
from trainables.storage.identity import seed_from
from trainables.threats.membership.lira import Inside
from trainables.threats.membership.scores import Floats
from trainables.training import loop
from trainables.trial.context import TrialContext

VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class ShadowAnswers:
    """What the deployed shadow models answer to the points, and which of them each has seen."""

    log_probabilities: Floats
    """(S, N, K)"""
    inside: Inside
    """(S, N) whether the point was among the rows given to the shadow model's training; every
    point was in as many of them, within one. A filter of the stack may have dropped it there."""
    rows: int
    """Rows that a shadow model was given, of the first; those of halves may differ by one."""


def population(ctx: TrialContext) -> LabelledImages:
    """Join what shadow models are drawn from: the training pool and the held-out one come first.

    Of the pools that neither train the model nor are measured come as many rows, stratified, as
    bring a half to the size of the training pool; published pools have none.
    """
    pools = ctx.pools
    further = [pools.auxiliary]
    if ctx.held_out is not pools.validation:
        further.append(pools.validation)
    first = _joined([pools.train, ctx.held_out])
    rest = [pool for pool in further if pool is not None]
    room = 2 * len(pools.train) - len(first)
    if not rest or room < 1:
        return first
    spare = _joined(rest)
    return _joined([first, spare.select(stratified_subset(spare.labels, room, seed=0))])


def shares(labels: Tensor, rows: int, shadows: int, seed: int) -> Tensor:
    """Draw which points (S, P) each shadow model is given, `rows` of them; labels (P,) on the CPU.

    Every point is in as many models as any other, within one, and in and out of one at least:
    where the models are too few for that, they are given the number nearest to `rows` that allows
    it, which is a half with two models. Each is given as many of every class, within one or two.
    """
    points = len(labels)
    fewer = max(min(rows, points - rows), -(-points // shadows))
    if 2 * fewer >= points:
        return halves(labels, shadows, seed)
    chosen = torch.zeros(shadows, points, dtype=torch.bool)
    times = torch.zeros(points, dtype=torch.int64)
    for number in range(shadows):
        by_class = _by_class(labels, seed_from(str(seed), "share", str(number)))
        wanted, level = fewer, int(times.min())
        while wanted:  # those that were chosen least, evenly over the classes
            waiting = by_class[(times[by_class] == level) & ~chosen[number, by_class]]
            taken = min(wanted, len(waiting))
            chosen[number, waiting[torch.arange(taken) * len(waiting) // max(1, taken)]] = True
            wanted, level = wanted - taken, level + 1
        times += chosen[number]
    return chosen if 2 * rows <= points else ~chosen


def halves(labels: Tensor, shadows: int, seed: int) -> Tensor:
    """Draw which points (S, P) each shadow model is given; labels (P,) on the CPU.

    Two models in a row share the points between them, each class by halves: so every point is
    in exactly half of the models, and more models change nothing about the first ones.
    """
    if shadows < 2 or shadows % 2:
        raise ValueError(f"shadow models come in pairs, but {shadows} were asked for")
    rows = []
    for pair in range(shadows // 2):
        by_class = _by_class(labels, seed_from(str(seed), "pair", str(pair)))
        first = torch.zeros(len(labels), dtype=torch.bool)
        first[by_class[::2]] = True
        rows += [first, ~first]
    return torch.stack(rows)


def shadow_seed(ctx: TrialContext, number: int) -> int:
    """Return the training seed of a shadow model; it depends on its data and seed alone."""
    return seed_from("shadow", ctx.dataset.fingerprint, str(ctx.spec.seed), str(number))


def shadow_answers(
    ctx: TrialContext, points: LabelledImages, asked: Tensor, shadows: int
) -> ShadowAnswers:
    """Train and deploy shadow models under the trial's stack and ask them.

    `points` is the population (P,), `asked` (N,) the rows of it that are asked. The attack knows
    the whole defense this way: what it does to the training and to the answers, it does to the
    shadows'. They are given as many rows as the attacked model, which is none of them: it has
    other rows and another seed.
    """
    labels = points.labels.cpu()
    seed = seed_from("shadows", ctx.dataset.fingerprint, content_hash(points), str(ctx.spec.seed))
    inside = shares(labels, len(ctx.pools.train), shadows, seed)
    asked = asked.cpu()
    images = points.select(asked)
    answers = [
        _answers_of(ctx, points.select(inside[number].nonzero().flatten()), images, number)
        for number in range(shadows)
    ]
    return ShadowAnswers(
        log_probabilities=np.stack([answer.cpu().double().numpy() for answer in answers]),
        inside=inside[:, asked].numpy(),
        rows=int(inside[0].sum()),
    )


def _answers_of(
    ctx: TrialContext, rows: LabelledImages, images: LabelledImages, number: int
) -> Tensor:
    """Return the deployed log-probabilities (N, K) of one shadow model."""
    stack, seed = ctx.spec.stack, shadow_seed(ctx, number)
    twin = ctx.twin(train=rows, seed=seed)

    def build() -> Artefact:
        trained = twin.train(stack, rows, seed)
        deployed = twin.deploy(stack, trained.model)
        return Artefact({"log_probabilities": twin.log_probabilities(deployed, images)})

    identity = {
        "version": VERSION,
        "training": loop.VERSION,
        "deployment": twin.deployment,
        "rows": content_hash(rows),
        "asked": content_hash(images),
    }
    role = f"shadow_answers{number}"
    return ctx.cached("shadow_answers", identity, build, role=role).tensors["log_probabilities"]


def _by_class(labels: Tensor, seed: int) -> Tensor:
    """Return all points (P,), those of a class in a row and in random order."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return shuffled[labels[shuffled].argsort(stable=True)]


def _joined(parts: list[LabelledImages]) -> LabelledImages:
    return LabelledImages(
        pixels=torch.cat([part.pixels for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        scale=parts[0].scale,
    )
