"""Fine-tuning on clean images towards weights whose neighbours are good as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.datasets import LabelledImages
from trainables.defenses.defense import Defense, DefenseContext
from trainables.defenses.repair.repair import Step, fine_tune, repaired
from trainables.deployed.predictor import Predictor
from trainables.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class FtSam(Defense):
    """Fine-tune on clean images by adaptive sharpness-aware minimisation (FT-SAM).

    Each step follows the gradient at the worst weights nearby, where a weight may move the farther
    the larger it is: the weights that a backdoor rests on are large, and are moved most. Clean rows
    are the calibration pool. Source: Zhu et al., 2023, section 4; the step: Kwon et al., 2021.
    """

    name = "ft_sam"
    slot = "repair"
    guarantee = "empirical"
    meaning = "Fine-tune on clean images by adaptive sharpness-aware minimisation."
    source = "Zhu et al., 2023; Kwon et al., 2021"
    limits = (
        "It needs clean, rightly labelled images that nobody poisoned: the calibration pool.",
        "It fine-tunes on plain images, which wears off what adversarial training or noise gave.",
    )
    broken_by = (
        "Min et al., 2024 (Uncovering, explaining, and mitigating the superficial safety of "
        "backdoor defense): a few poisoned rows bring a purified network's backdoor back.",
        "Zhu et al., 2024 (Breaking the false sense of security in backdoor defense through "
        "re-activation attack): a changed trigger reaches the backdoor that is left.",
    )

    rho: float = parameter(
        2.0, kind="float", low=0.0, high=1000.0,
        meaning="how far the weights move, as the L2 norm of each one's share of itself",
    )  # fmt: skip
    epochs: int = parameter(
        100, kind="int", meaning="passes of the fine-tuning", low=1, high=100_000
    )
    learning_rate: float = parameter(
        0.01, kind="float", meaning="of the fine-tuning", low=1e-8, high=100.0
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether something is fitted on the calibration pool: the whole repair is."""
        return True

    def deploy(self, predictor: Predictor, ctx: DefenseContext) -> Predictor:
        """Deploy a fine-tuned copy of the network."""
        batch_size = ctx.training.batch_size

        def repair(
            model: nn.Module, clean: LabelledImages, generator: torch.Generator
        ) -> dict[str, float]:
            fine_tune(
                model,
                clean,
                generator,
                epochs=self.epochs,
                batch_size=batch_size,
                learning_rate=self.learning_rate,
                step=lambda optimizer: sharpness_aware_step(optimizer, model, self.rho),
            )
            return {}

        return repaired(self, predictor, ctx, repair)


def sharpness_aware_step(optimizer: torch.optim.Optimizer, model: nn.Module, rho: float) -> Step:
    """Make a step by the gradient at w + rho T^2 g / ||T g||, T = |w|, g the gradient at w.

    That is where a loss that is linear near w is largest, over moves m with ||m / T|| <= rho.
    Running statistics of a normalisation are those at w: no weights stay where the step looks.
    """
    weights, buffers = list(model.parameters()), list(model.buffers())

    def taken(loss: Callable[[], Tensor]) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        before = [value.detach().clone() for value in (*weights, *buffers)]
        with torch.no_grad():
            _climb(weights, rho)
        optimizer.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for value, earlier in zip((*weights, *buffers), before, strict=True):
                value.copy_(earlier)
        optimizer.step()
        return found.detach()

    return taken


def _climb(weights: list[Tensor], rho: float) -> None:
    """Move the weights, in place, to the worst ones nearby by their gradients."""
    moving = [(weight, weight.grad) for weight in weights if weight.grad is not None]
    squares = [(weight.abs() * gradient).square().sum() for weight, gradient in moving]
    norm = torch.stack(squares).sum().sqrt().clamp_min(1e-12)
    for weight, gradient in moving:
        weight.add_(weight.square() * gradient * (rho / norm))
