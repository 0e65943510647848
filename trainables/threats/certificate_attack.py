"""Certified points attacked inside their own radii, each compared with its own certificate.

What is proven is the answer of the smoothed classifier, the likeliest class. Two things are told
apart: a certificate is refuted where another class wins so many draws that the certified one cannot
be the likeliest; an answer wavers where the vote that is deployed abstains or says another class.

Axes: R certified points, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from trainables.attacks.carlini_wagner import carlini_wagner
from trainables.attacks.pgd import pgd
from trainables.datasets import LabelledImages
from trainables.defenses.certified.gaussian_noise import VotingPredictor
from trainables.deployed.predictor import (
    REFUSED,
    Certificates,
    Predictor,
    Surface,
    ask,
    surface_scores,
)
from trainables.deployed.votes import count_votes
from trainables.threats.evasion.l2_curve import stretched
from trainables.threats.evasion.run import lengths
from trainables.trial.context import TrialContext

INSIDE = 0.9
"""Share of its own radius within which each certified point is attacked."""
_LEAST = 1e-4
"""Radius from which a point is attacked: less is lost in the rounding of pixels."""
_ROUNDING = 1e-6
_STEPS = {"exact": 40, "eot": 20, "bpda": 40}
"""Steps of PGD on a surface of each kind."""
_SEARCH: dict[str, Any] = {
    "steps": 100,
    "search_steps": 1,
    "initial_const": 5.0,
    "step_size": 0.05,
    "confidence": 1.0,
}
"""Settings of Carlini and Wagner's attack, whose directions are what counts: they are stretched."""
_DRAWS = 10_000
"""Draws by which a doubtful answer is judged."""
_SURE = 1e-6
"""Level at which a class is said to be the likelier one of two."""
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What the attacks did to images whose label is certified."""

    refuted: Tensor
    """(R,) whether the certified class cannot be the likeliest one."""
    wavered: Tensor
    """(R,) whether the deployed model does not answer with it."""

    def worse(self, other: Judged) -> Judged:
        """Return what either did."""
        return Judged(self.refuted | other.refuted, self.wavered | other.wavered)


def attack_certified(
    predictor: Predictor, points: LabelledImages, found: Certificates, ctx: TrialContext
) -> dict[str, Any]:
    """Attack each certified point within INSIDE of its radius; return what it did, for the notes.

    The attacks climb away from the certified class, be it the true one or not: by PGD in L2 on
    every surface, which of a smoothed model averages draws, and by Carlini and Wagner's attack,
    stretched to the radius, on those that draw nothing.
    """
    rows = (found.radius > _LEAST).nonzero().flatten()
    generator = ctx.generator("certificate_attack")
    parts = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        x, label = points.images(part), found.label[part]
        radius = (INSIDE * found.radius[part] - _ROUNDING).clamp_min(0).to(x)
        judged = None
        for images in _candidates(predictor, x, label, radius, ctx, generator):
            here = judge(predictor, images, label, ctx.dataset.num_classes, generator)
            judged = here if judged is None else judged.worse(here)
        if judged is not None:
            parts.append(judged)
    refuted = torch.cat([part.refuted for part in parts]).tolist() if parts else []
    wavered = torch.cat([part.wavered for part in parts]).tolist() if parts else []
    return {
        "inside": INSIDE,
        "points": rows.tolist(),
        "refuted": refuted,
        "wavered": wavered,
        "settling": _settling(predictor, found.radius[rows], found.failure_probability),
    }


def judge(
    predictor: Predictor, images: Tensor, label: Tensor, classes: int, generator: torch.Generator
) -> Judged:
    """Ask the deployed model about images (R, C, H, W) whose certified class is `label` (R,).

    Where its own vote does not settle the matter, 10,000 draws are taken. A predictor that is no
    vote is asked again instead; one that draws nothing refutes by its single answer.
    """
    if isinstance(predictor, VotingPredictor):
        counts = count_votes(predictor.draw, images, generator, draws=predictor.draws).counts
        wavered = predictor.elect(counts) != label
    else:
        answer = ask(predictor, images, generator, classes).label
        counts, wavered = _one_hot(answer, classes), answer != label
        if not predictor.stochastic:
            return Judged(wavered & (answer != REFUSED), wavered)
    own, other = _first_two(counts, label)
    refuted = _likelier(other, own)
    rows = (~(refuted | _likelier(own, other))).nonzero().flatten()
    if len(rows) > 0:
        more = _more_votes(predictor, images[rows], classes, generator)
        own, other = _first_two(more, label[rows])
        refuted[rows] = _likelier(other, own)
    return Judged(refuted, wavered)


def _candidates(
    predictor: Predictor,
    x: Tensor,
    label: Tensor,
    radius: Tensor,
    ctx: TrialContext,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    for surface in predictor.surfaces():

        def scores(images: Tensor, surface: Surface = surface) -> Tensor:
            return surface_scores(surface, images, generator, ctx.dataset.num_classes)

        yield pgd(
            scores, x, label, eps=radius, norm="l2", steps=_STEPS[surface.kind], early_stop=False,
            generator=generator,
        ).detach()  # fmt: skip
        if surface.kind != "eot":
            found = carlini_wagner(scores, x, label, early_stop=False, **_SEARCH).detach()
            inside = (lengths(found - x, "l2") <= radius)[:, None, None, None]
            cut = (x + stretched(x, found - x, radius)).clamp(0, 1)
            yield torch.where(inside, found, cut)


def _more_votes(
    predictor: Predictor, images: Tensor, classes: int, generator: torch.Generator
) -> Tensor:
    if isinstance(predictor, VotingPredictor):
        return count_votes(predictor.draw, images, generator, draws=_DRAWS).counts
    passes = max(1, _DRAWS // predictor.forward_passes_per_prediction)
    counts = torch.zeros(len(images), classes, dtype=torch.int64, device=images.device)
    for _ in range(passes):
        counts += _one_hot(ask(predictor, images, generator, classes).label, classes)
    return counts


def _one_hot(label: Tensor, classes: int) -> Tensor:
    """Count one vote for each label (R,), none for a refusal."""
    votes = torch.nn.functional.one_hot(label.clamp_min(0), classes)
    return votes * (label != REFUSED).to(votes.dtype)[:, None]


def _first_two(counts: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the votes for the label (R,), and the most that another class has (R,)."""
    own = counts.gather(1, label[:, None]).squeeze(1)
    return own, counts.scatter(1, label[:, None], -1).amax(1)


def _likelier(first: Tensor, second: Tensor) -> Tensor:
    """Return where a class of so many votes (R,) is surely likelier than another (R,)."""
    one, both = first.cpu().numpy(), (first + second).cpu().numpy()
    chance = np.where(both > 0, stats.binom.sf(one - 1, np.maximum(both, 1), 0.5), 1.0)
    return torch.from_numpy(np.asarray(chance <= _SURE)).to(first.device)


def _settling(predictor: Predictor, radius: Tensor, flip: float) -> dict[str, Any] | None:
    """Return the draws with which the vote hardly wavers at INSIDE of the median radius."""
    if not isinstance(predictor, VotingPredictor) or len(radius) == 0:
        return None
    median = float(radius.double().median())
    draws = predictor.settling_draws(median, INSIDE * median, flip)
    return None if draws is None else {"radius": median, "probability": flip, "draws": draws}
