"""PixelDP: a noise layer that makes the prediction differentially private in the image.

Axes: B batch, C channels, H, W, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainables.defenses.certified import clopper_pearson
from trainables.defenses.certified.clopper_pearson import Numbers
from trainables.defenses.certified.gaussian_noise import GaussianNoise, VotingPredictor
from trainables.defenses.certified.pixeldp_certificate import (
    certified_sizes,
    fewest_draws,
    noise_sigma,
)
from trainables.defenses.defense import Defense, DefenseContext, StepPolicy
from trainables.deployed.predictor import REFUSED, Certificates, Predictor
from trainables.deployed.votes import count_votes
from trainables.errors import InputError
from trainables.models.bounds.lipschitz import lipschitz_bound, split_path
from trainables.models.bounds.projection import PathProjection
from trainables.models.contract import Classifier
from trainables.parameters import parameter

IMAGE = "image"
NORMALIZED = "normalized"
_LARGEST_GAIN = 4.0
"""A path of norm 1 yields values some ten times smaller than a free one, and what follows hardly
learns from them; a gain of 8 makes the steps of the path itself too long."""
_SURE = 1e-6
"""Probability at which a rate is taken to lie outside what was drawn of it."""
_FEWEST_CLASSES = 2
"""What is certified of no two classes is certified of no more: each bound's level is eta / K."""
_TRANSFORMED = "what would be certified is its output image, not its input"


class PixelDPNoise(GaussianNoise):
    """The noise layer, which knows where it stands and the shape (C, H, W) of the images.

    Behind the noise it multiplies by `gain`, which no certificate depends on.
    """

    def __init__(
        self, sigma: float, placement: str, shape: tuple[int, ...], gain: float = 1.0
    ) -> None:
        super().__init__(sigma)
        self.placement = placement
        self.shape = shape
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Add the noise and multiply by the gain."""
        return super().forward(x) * self.gain


@dataclass(frozen=True, kw_only=True)
class PixelDP(Defense):
    """Add Gaussian noise in the image or after a layer, in training and at prediction, and vote.

    The noise is made for a path of sensitivity 1 before it (how far its output moves in L2 where
    the image moves by 1). `normalized` keeps the path there: it is projected after each step.
    `measured` lets it grow. Either way a certificate divides by the sensitivity that the trained
    path is proven not to exceed. Behind a normalized path and its noise a constant gain makes up
    for the path's small values; what follows the noise is free. Attacks inside a training, which
    craft in eval mode, and the learning curves see the network without noise.
    Two faults of the reference code are not here: `eta` counts wherever labels are voted for, and
    a path's bound is that of the operator on the real grid, padding and stride included.
    Source: Lecuyer et al., Certified robustness to adversarial examples with differential
    privacy, 2019.
    """

    name = "pixeldp"
    slot = "architecture"
    guarantee = "certified"
    meaning = "Gaussian noise in the image or after a layer, and a vote; certifies an L2 size."
    source = "Lecuyer et al., 2019"
    limits = (
        "Its certificates are L2 alone, and smaller than those of randomized smoothing "
        "for the same noise (Cohen et al., 2019).",
        "Beyond its certified size, an answer is proven nothing.",
    )
    broken_by = (
        "Jin et al., 2022 (Getting a-round guarantees): certificates whose noise and sums are "
        "floating-point numbers can be false, and nothing here guards against it.",
    )
    needs = ("points",)
    owns = ("step_policy",)
    deployment_only = ("draws", "n", "eta")
    refuses: ClassVar[Mapping[str, str]] = {
        "input_transformation": _TRANSFORMED,
        "denoiser": _TRANSFORMED,
        "diffusion_purification": _TRANSFORMED,
        "static_adversarial_finetuning": "its training starts from an undefended network, whose "
        "layers before the noise have grown without a bound",
    }

    placement: str = parameter(
        "layer1", kind="word", meaning="where the noise stands: image, or after layer1, layer2, .."
    )
    # No multiple of the data set's radius: that is an Linf size, and says nothing of an L2 one.
    attack_bound: float = parameter(
        0.1, kind="float", low=1e-4, high=100.0, unit="L2 in pixel values of [0, 1]",
        meaning="size of the image's move that the noise makes private (the paper's L)",
    )  # fmt: skip
    dp_epsilon: float = parameter(
        1.0, kind="float", low=1e-3, high=1.0,
        meaning="epsilon of the privacy towards such a move; the Gaussian mechanism holds up to 1",
    )  # fmt: skip
    dp_delta: float = parameter(
        0.05, kind="float", meaning="delta of the privacy towards such a move", low=1e-6, high=0.3
    )
    sensitivity: str = parameter(
        NORMALIZED, kind="word", words=(NORMALIZED, "measured"),
        meaning="normalized: the layers before the noise are kept at norm 1; measured: they are "
        "left free, and certificates are divided by their norm",
    )  # fmt: skip
    draws: int = parameter(300, kind="int", meaning="votes of a prediction", low=1, high=100_000)
    n: int = parameter(2000, kind="int", meaning="draws of a certificate", low=10, high=10_000_000)
    eta: float = parameter(
        0.05, kind="float", low=1e-9, high=0.5,
        meaning="highest probability that a certificate is wrong",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_draws(_FEWEST_CLASSES)

    def _check_draws(self, num_classes: int) -> None:
        """Raise InputError where a certificate of so many classes proves nothing at its best.

        The vote of a prediction needs no such check: its winner is the answer, however close.
        """
        least = fewest_draws(num_classes, self.eta)
        if self.n < least:
            raise InputError(
                f"{self.name}: n={self.n} draws certify nothing of {num_classes} classes at eta="
                f"{self.eta:g}, however they fall; n must be at least {least}"
            )

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in units of the output of the path before it."""
        return noise_sigma(self.attack_bound, self.dp_epsilon, self.dp_delta)

    def modify_model(self, model: nn.Module, ctx: DefenseContext) -> nn.Module:
        """Insert the noise.

        Raises InputError for an unknown placement, for too few draws to certify any of the data's
        classes, and, naming the layer, for a path before the noise that has no bound or cannot be
        normalized.
        """
        self._check_draws(ctx.dataset.num_classes)
        _check_placement(model, self.placement)
        # Looked at here already: a path without a bound need not be trained to be refused.
        path = _path(model, self.placement)
        if self._projects:
            PathProjection(path, ctx.dataset.shape)
        else:
            split_path(path, ctx.dataset.shape)
        gain = min(_LARGEST_GAIN, 1 / self.sigma) if self._projects else 1.0
        noise = PixelDPNoise(self.sigma, self.placement, ctx.dataset.shape, gain)
        insert: Callable[[str, nn.Module], None] = model.insert  # type: ignore[assignment]
        insert(self.placement, noise)
        return model

    def step_policy(self) -> StepPolicy | None:
        """Project the path before the noise to norm 1 after each step, if it is to be normalized.

        A quick projection follows each step; a rigorous one ends each epoch.
        """
        if not self._projects:
            return None
        kept = _NormalizedPath()
        return StepPolicy(
            after_step=kept.step, epoch_end=kept.settle, state=kept.state, restore=kept.restore
        )

    @property
    def _projects(self) -> bool:
        return self.sensitivity == NORMALIZED and self.placement != IMAGE

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Let the network vote under its noise, with the sensitivity of its trained path.

        Raises RuntimeError where the predictor's model has no noise of this defense.
        """
        del ctx
        noise = noise_of(predictor.model)
        sensitivity = path_sensitivity(predictor.model, noise.placement, noise.shape)
        return PixelDPPredictor(predictor, self, noise, sensitivity)


class PixelDPPredictor(VotingPredictor):
    """A network with PixelDP's noise in it, asked by vote."""

    def __init__(
        self, inner: Predictor, settings: PixelDP, noise: PixelDPNoise, sensitivity: float
    ) -> None:
        super().__init__(inner, settings.draws)
        self.settings = settings
        self.noise = noise
        self.sensitivity = sensitivity
        """Proven bound on how far the input of the noise moves where the image moves by 1 (L2)."""

    def draw(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return the scores (count, B, K) of draws of the noise; what is before it runs once."""
        self.noise.generator, self.noise.copies = generator, count
        try:
            scores = self.inner.scores(x, generator)
        finally:
            self.noise.generator, self.noise.copies = None, 1
        return scores.reshape(count, len(x), scores.shape[1])

    def certificates(self, x: Tensor, generator: torch.Generator) -> Certificates:
        """Prove of images x (B, C, H, W) the L2 size within which the vote's label stays."""
        n = self.settings.n
        votes = count_votes(self.draw, x, generator, draws=n, hopeless=self.hopeless)
        radius = torch.from_numpy(self._sizes(votes.counts, n)).to(x.device)
        # What was given up has no certificate, whatever the draws that it had would have proven:
        # to stop at a moment that depends on the counts is sound only where it abstains.
        radius[votes.draws < n] = 0.0
        return Certificates(
            label=votes.winner.masked_fill(radius == 0, REFUSED),
            radius=radius,
            draws=votes.draws,
            failure_probability=self.settings.eta,
        )

    def hopeless(self, counts: Tensor, rows: Tensor, taken: int) -> Tensor:
        """Return for which images, by counts (R, K) after `taken` draws, nothing will be certified.

        The label that leads is taken to win the remaining draws at the upper Clopper-Pearson
        bound, at level 1e-6, of its rate so far, and every other at its lower bound. No other
        label could then be certified at more: its bounds would be worse on both sides.
        """
        del rows
        n = self.settings.n
        so_far = counts.cpu().numpy()
        leads = np.arange(so_far.shape[1]) == so_far.argmax(1, keepdims=True)
        rates = np.where(
            leads,
            clopper_pearson.upper(so_far, taken, _SURE),
            clopper_pearson.lower(so_far, taken, _SURE),
        )
        reached = np.minimum(so_far + (n - taken) * rates, n)
        return torch.from_numpy(self._sizes(reached, n) == 0).to(counts.device)

    def _sizes(self, counts: Numbers, draws: int) -> npt.NDArray[np.float64]:
        return certified_sizes(
            counts,
            draws,
            sigma=self.noise.sigma,
            eta=self.settings.eta,
            sensitivity=self.sensitivity,
        )


class _NormalizedPath:
    """Keeps the path before the noise at norm 1 in one training, whose model the hooks bring."""

    def __init__(self) -> None:
        self._projection: PathProjection | None = None

    def step(self, model: nn.Module) -> None:
        """Project quickly, after a step of the optimiser."""
        self._of(model).step()

    def settle(self, model: nn.Module) -> None:
        """Project rigorously, at an epoch's end."""
        self._of(model).settle()

    def state(self) -> dict[str, Any]:
        """Return where the iterations of the norms stand."""
        return {"iterates": self._projection.iterates() if self._projection else []}

    def restore(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on with iterations that stood so."""
        if state["iterates"]:
            self._of(model).set_iterates(state["iterates"])

    def _of(self, model: nn.Module) -> PathProjection:
        if self._projection is None:
            noise = noise_of(model)
            self._projection = PathProjection(_path(model, noise.placement), noise.shape)
        return self._projection


def noise_of(model: nn.Module) -> PixelDPNoise:
    """Return the noise layer that `modify_model` put into a model; RuntimeError if there is
    none.
    """
    for module in model.modules():
        if isinstance(module, PixelDPNoise):
            return module
    raise RuntimeError("the model has no noise of pixeldp; deploy one that was trained under it")


def path_sensitivity(model: nn.Module, placement: str, shape: tuple[int, ...]) -> float:
    """Bound how far what stands before a placement moves in L2 where the image moves by 1.

    Raises InputError, with its name, for a layer that has no bound.
    """
    return lipschitz_bound(_path(model, placement), shape)


def _path(model: nn.Module, placement: str) -> list[nn.Module]:
    return [] if placement == IMAGE else _classifier(model).path_to(placement)


def _check_placement(model: nn.Module, placement: str) -> None:
    points: nn.ModuleDict = model.points  # type: ignore[assignment]
    known = model.noise_points if isinstance(model, Classifier) else tuple(points)
    if placement not in known:
        raise InputError(
            f"pixeldp: placement has the unknown {placement!r}; known: {', '.join(known)}"
        )
    if placement != IMAGE:
        _classifier(model)


def _classifier(model: nn.Module) -> Classifier:
    """Return the model if it is one whose layers before a placement are known."""
    if not isinstance(model, Classifier):
        raise InputError(
            "pixeldp: only of trainables.models.contract.Classifier is it known which layers stand "
            f"before a placement, and {type(model).__name__} is none; take placement=image"
        )
    return model
