"""Differentially private training: each row's part in a step is bounded, and noise hides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from trainables.defenses.defense import Defense, DefenseContext, StepPolicy
from trainables.defenses.training.private_steps import PrivateSteps, check_rowwise
from trainables.parameters import parameter

_ADVERSARIAL = (
    "a row has the gradients of several views, or passes the network again to be crafted; one "
    "gradient a row is clipped"
)
_CHOSEN = "it chooses rows by looking at all of them, which no accountant counts"
_UNCOUNTED = "it trains on the same rows without noise, which no accountant counts"


@dataclass(frozen=True, kw_only=True)
class DPSGD(Defense):
    """Clip each row's gradient, add Gaussian noise to their sum, and count what that spends.

    A step draws each row with probability batch_size / N, so a batch may be of any size, even
    empty; the sum is divided by batch_size. The noise has standard deviation noise_multiplier x
    max_grad_norm. What is spent is opacus' account of Renyi differential privacy for rows added
    or removed, at dp_delta: the curve and metric dp_epsilon, over all steps taken, also where an
    earlier epoch's weights are kept. Where the calibration pool ends a training early, what could
    be promised beforehand is the epsilon of all planned epochs. Calibration and validation rows
    are not members: nothing is promised to them. Of a user's own defense in the stack it is only
    checked that a row has one gradient; that no row meets another in it is for the user to see.
    Source: Abadi et al., Deep learning with differential privacy, 2016, algorithm 1.
    """

    name = "dp_sgd"
    slot = "training_batch"
    guarantee = "empirical"
    meaning = "Clip each row's gradient and add noise, so that the weights say little of any row."
    source = "Abadi et al., 2016; accounting: Mironov et al., 2019"
    limits = (
        "Its bound is about what one training row can change, at the epsilon and delta that are "
        "reported; it says nothing of changed images.",
        "The bound holds for the training alone: what is tuned by looking at the same rows is "
        "outside of it.",
    )
    broken_by = (
        "Tramer et al., 2022 (Debugging differential privacy): an implementation's claimed "
        "epsilon was shown to be false by an audit.",
        "Nasr et al., 2021: a strong attacker comes close to what the bound allows, so a large "
        "epsilon protects little.",
    )
    owns = ("step_policy",)
    refuses: ClassVar[Mapping[str, str]] = {
        "fgsm_adversarial_training": _ADVERSARIAL,
        "pgd_adversarial_training": _ADVERSARIAL,
        "trades": _ADVERSARIAL,
        "dynamic_mixed_batch": _ADVERSARIAL,
        "static_adversarial_finetuning": _UNCOUNTED,
        "gradient_regularization": "the penalty differentiates a gradient, and of that no row's "
        "own part is taken",
        "mixup": "a mixed image is two rows, so that clipping its gradient bounds neither",
        "spectral_signatures": _CHOSEN,
        "activation_clustering": _CHOSEN,
        "ensemble": "each member spends privacy on the same rows, and one member's is counted",
        "denoiser": _UNCOUNTED,
        "diffusion_purification": _UNCOUNTED,
        "mahalanobis_detector": "it is fitted to the training rows without noise, which no "
        "accountant counts",
    }

    noise_multiplier: float = parameter(
        1.0, kind="float", low=0.0, high=1000.0,
        meaning="standard deviation of the noise over max_grad_norm; at 0 nothing is private",
    )  # fmt: skip
    max_grad_norm: float = parameter(
        1.0, kind="float", low=1e-6, high=1e9,
        meaning="L2 norm that a row's gradient, over all weights, is clipped to",
    )  # fmt: skip
    dp_delta: float | None = parameter(
        None, kind="float", low=1e-15, high=0.5,
        meaning="delta at which dp_epsilon is counted; by default 1 / (2 x training rows)",
    )  # fmt: skip

    def modify_model(self, model: nn.Module, ctx: DefenseContext) -> nn.Module:
        """Return the model as it is.

        Raises InputError, naming the layer, for one whose layers mix the rows of a batch.
        """
        del ctx
        check_rowwise(model)
        return model

    def step_policy(self) -> StepPolicy | None:
        """Draw, clip and add noise, again in every training."""
        return PrivateSteps(
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            dp_delta=self.dp_delta,
        ).policy()
