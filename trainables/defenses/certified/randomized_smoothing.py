"""Randomized smoothing: the class that a network predicts most often under Gaussian noise.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from trainables.defenses.certified import clopper_pearson
from trainables.defenses.certified.gaussian_noise import VotingPredictor, noisy_copies
from trainables.defenses.certified.settled_votes import (
    MOST,
    probability_inside,
    settling_draws,
    wavering_probability,
)
from trainables.defenses.defense import Defense, DefenseContext, View
from trainables.deployed.predictor import REFUSED, Certificates, Predictor
from trainables.deployed.votes import Hopeless, count_votes
from trainables.errors import InputError
from trainables.parameters import parameter

_SURE = 1e-6
"""Probability at which an image is given up although it could still be certified."""


@dataclass(frozen=True, kw_only=True)
class RandomizedSmoothing(Defense):
    """Train under Gaussian noise, and answer with the class that wins a vote under it.

    The answer is PREDICT of the paper, which abstains where the vote is too close, and the
    certificate is CERTIFY, which selects a class by `n0` draws and bounds its probability from
    below by `n` others. Any trained network will do; one that saw no noise certifies little. With
    adversarial training, the noise comes on top of the adversarial images.
    Certified is the likeliest class. A vote of few draws may abstain or err near the edge of the
    certified ball; `settled_votes.settling_draws` returns draws for which it hardly ever does.
    The proof takes noise and network to be exact. Float32 is not: Voracek and Hein, 2023, show
    networks whose certificates are false because of rounding, and nothing here guards against it.
    Source: Cohen et al., Certified adversarial robustness via randomized smoothing, 2019,
    section 3.2; noise in the training: Lecuyer et al., 2019.
    """

    name = "randomized_smoothing"
    slot = "deployment"
    guarantee = "certified"
    meaning = "Vote under Gaussian noise, trained with it; certifies an L2 radius."
    source = "Cohen et al., 2019"
    limits = (
        "Its certificates are L2 alone and hold with the declared probability; beyond the "
        "radius an answer is proven nothing.",
        "What is certified is the likeliest class; near the edge of its ball a vote of few draws "
        "may abstain or err.",
        "It may abstain, which counts as wrong; every answer costs many passes.",
    )
    broken_by = (
        "Voracek & Hein, 2023: rounding of floating-point numbers makes certificates of some "
        "networks false, and nothing here guards against it.",
        "Kumar et al., 2020 (Curse of dimensionality on randomized smoothing): in the Linf norm "
        "its certificates vanish as images grow.",
    )
    deployment_only = ("n0", "n", "alpha", "draws")
    trains = ""  # a network that saw no noise can be smoothed too
    refuses: ClassVar[Mapping[str, str]] = {
        "randomized_network": "a randomised step under smoothing: its certificate is about the "
        "Gaussian noise alone, and its draws are dear enough",
        "pixeldp": "two certificates: each is a vote under noise of its own",
    }

    # No multiple of the data set's radius: that is an Linf size, and says nothing of an L2 one.
    sigma: float = parameter(
        0.25, kind="float", low=1e-4, high=100.0, unit="pixel values of [0, 1]",
        meaning="standard deviation of the noise, in the training and at every answer",
    )  # fmt: skip
    n0: int = parameter(
        100, kind="int", meaning="draws that select the class of a certificate", low=1, high=10**6
    )
    n: int = parameter(
        10_000, kind="int", meaning="draws that bound its probability", low=1, high=10**7
    )
    alpha: float = parameter(
        0.001, kind="float", low=1e-12, high=0.5,
        meaning="highest probability that an answer or a certificate is wrong",
    )  # fmt: skip
    draws: int = parameter(300, kind="int", meaning="votes of a prediction", low=1, high=10**6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _settles(self.draws, self.alpha):
            least = next(draws for draws in count(1) if _settles(draws, self.alpha))
            raise InputError(
                f"{self.name}: a vote of draws={self.draws} is never settled at alpha="
                f"{self.alpha:g}, so that every answer would be an abstention; draws must be at "
                f"least {least}"
            )
        if not _certifies(self.n, self.alpha):
            least = next(n for n in count(1) if _certifies(n, self.alpha))
            raise InputError(
                f"{self.name}: n={self.n} draws certify nothing at alpha={self.alpha:g}, however "
                f"they fall; n must be at least {least}"
            )

    def views(
        self, model: nn.Module, views: Sequence[View], generator: torch.Generator
    ) -> Sequence[View]:
        """Add noise to every view; nothing is cut to [0, 1], as nothing is when it answers."""
        del model
        return [replace(view, x=noisy_copies(view.x, 1, self.sigma, generator)) for view in views]

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Let the predictor vote under noise; InputError where it rejects images."""
        del ctx
        if predictor.rejects:
            raise InputError(
                f"{self.name}: {type(predictor).__name__} rejects images, which no vote of classes "
                "can; leave it out of the stack"
            )
        return SmoothedPredictor(predictor, self)


class SmoothedPredictor(VotingPredictor):
    """Another predictor smoothed by Gaussian noise on the image."""

    def __init__(self, inner: Predictor, settings: RandomizedSmoothing) -> None:
        super().__init__(inner, settings.draws)
        self.settings = settings

    def draw(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return the inner scores (count, B, K) of noisy copies of the images."""
        noisy = noisy_copies(x, count, self.settings.sigma, generator)
        return self.inner.scores(noisy, generator).reshape(count, len(x), -1)

    def elect(self, counts: Tensor) -> Tensor:
        """Return PREDICT of votes (B, K): the winner, or REFUSED where the vote is too close.

        Too close is a two-sided binomial test of the winner against the runner-up at level alpha.
        """
        top = counts.topk(2, dim=1)
        first, second = top.values.cpu().numpy().T
        close = torch.from_numpy(_too_close(first, second, self.settings.alpha)).to(counts.device)
        return top.indices[:, 0].masked_fill(close, REFUSED)

    def settling_draws(self, radius: float, distance: float, flip: float) -> int | None:
        """Return draws with which PREDICT gives the certified class there with probability
        1 - flip; None where more than 10 million are needed.
        """
        p = probability_inside(radius, distance, self.settings.sigma)
        if wavering_probability(MOST, p, self.settings.alpha) > flip:
            return None
        return settling_draws(p, flip, self.settings.alpha)

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
        """Return CERTIFY of images x (B, C, H, W): inside the radius the likeliest class is this
        one.

        An image whose class can no longer reach a lower bound above 1/2 is drawn no further.
        """
        n0, n, alpha = self.settings.n0, self.settings.n, self.settings.alpha
        selected = count_votes(self.draw, x, generator, draws=n0).winner
        votes = count_votes(
            self.draw, x, generator, draws=n, hopeless=cannot_win(selected, n, alpha)
        )
        won = votes.counts.gather(1, selected[:, None]).squeeze(1)
        # Draws that were spared count as lost, which leaves their image without a certificate.
        radius = cohen_radius(won, n, alpha, self.settings.sigma)
        return Certificates(
            label=selected.masked_fill(radius == 0, REFUSED),
            radius=radius,
            draws=n0 + votes.draws,
            failure_probability=alpha,
        )


def _too_close(
    first: NDArray[np.int64], second: NDArray[np.int64], alpha: float
) -> NDArray[np.bool_]:
    """Return whether votes for two classes may be those of a fair coin, at level alpha."""
    # Twice the upper tail is the two-sided p-value, as a fair coin's distribution is symmetric.
    p = np.minimum(1.0, 2 * stats.binom.sf(first - 1, first + second, 0.5))
    return np.asarray(p > alpha)


def _settles(draws: int, alpha: float) -> bool:
    """Return whether a vote abstains not even where all draws agree."""
    return not _too_close(np.array(draws), np.array(0), alpha)


def _certifies(n: int, alpha: float) -> bool:
    """Return whether n draws that all agree have a lower bound above 1/2."""
    return bool(clopper_pearson.lower(n, n, alpha) > 0.5)


def cohen_radius(won: Tensor, n: int, alpha: float, sigma: float) -> Tensor:
    """Return the L2 radius (B,), float64, of a class that won (B,) of n draws; 0 is an abstention.

    sigma * Phi^-1(p), where p is the one-sided Clopper-Pearson lower bound at level alpha, if that
    exceeds 1/2. Source: Cohen et al., 2019, theorem 1 with p_B = 1 - p_A, and CERTIFY.
    """
    p = clopper_pearson.lower(won, n, alpha)
    radius = np.where(p > 0.5, sigma * stats.norm.ppf(np.maximum(p, 0.5)), 0.0)
    return torch.from_numpy(radius).to(won.device)


def cannot_win(selected: Tensor, n: int, alpha: float) -> Hopeless:
    """Return for which images the selected class (B,) will not reach a lower bound above 1/2.

    The class's rate is taken to be its upper Clopper-Pearson bound at level 1e-6, and of the
    remaining draws it is given as many as it would win at that rate but once in a million times.
    To stop too early is sound: it can only abstain.
    """
    needed = wins_needed(n, alpha)

    def hopeless(counts: Tensor, rows: Tensor, taken: int) -> Tensor:
        won = counts.gather(1, selected[rows, None]).squeeze(1)
        rate = clopper_pearson.upper(won, taken, _SURE)
        reached = won.cpu().numpy() + stats.binom.isf(_SURE, n - taken, rate)
        return torch.from_numpy(reached < needed).to(counts.device)

    return hopeless


def wins_needed(n: int, alpha: float) -> int:
    """Return the fewest wins of n draws that bound a probability above 1/2; n + 1: none do.

    The lower bound is above 1/2 exactly if a fair coin wins so often with less than alpha.
    """
    return int(stats.binom.isf(alpha, n, 0.5)) + 1
