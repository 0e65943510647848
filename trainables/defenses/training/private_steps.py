"""The steps of a differentially private training, and what they spend.

Axes: N training rows, R rows of a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.defenses.defense import StepPolicy, TrainingRun
from trainables.errors import InputError
from trainables.host_draws import on_host

if TYPE_CHECKING:
    from trainables.defenses.training.noisy_optimizer import NoisyOptimizer

EPSILON_CURVE = "dp_epsilon"
DELTA_CURVE = "dp_delta"
"""The curves of what was spent by the end of each epoch, and at which delta that is counted."""
FEWEST_ROWS = 32
"""Minimum rows: with fewer, an epoch may draw none (probability exp(-N)) and measure no loss."""


class PrivateSteps:
    """The steps of one training: drawn by Poisson sampling, clipped row by row, with noise."""

    def __init__(
        self, *, noise_multiplier: float, max_grad_norm: float, dp_delta: float | None
    ) -> None:
        self.noise_multiplier = noise_multiplier
        self.max_grad_norm = max_grad_norm
        self.dp_delta = dp_delta
        self.steps = 0
        self.rate = self.delta = 0.0

    def policy(self) -> StepPolicy:
        """Return them as what a training asks for."""
        return StepPolicy(
            wrap_optimizer=self.wrap_optimizer,
            around=self.around,
            sample=self.sample,
            epoch_values=self.spent,
            state=lambda: {"steps": self.steps},
            restore=self.restore,
        )

    def wrap_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Put clipping and noise before the optimiser."""
        from trainables.defenses.training.noisy_optimizer import NoisyOptimizer

        self.optimizer = NoisyOptimizer(
            optimizer,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=1,  # known when the training begins
        )
        self.optimizer.attach_step_hook(self._count)
        wrapped: torch.optim.Optimizer = self.optimizer
        return wrapped

    @contextmanager
    def around(self, run: TrainingRun) -> Iterator[None]:
        """Have the model compute each row's own gradient, until the training ends.

        Raises InputError for fewer than 32 rows.
        """
        from opacus.grad_sample.grad_sample_module import GradSampleHooks

        if run.rows < FEWEST_ROWS:
            raise InputError(
                f"dp_sgd: {run.rows} training rows are too few; it needs at least {FEWEST_ROWS}"
            )
        self.rate = min(1.0, run.batch_size / run.rows)
        self.delta = 1 / (2 * run.rows) if self.dp_delta is None else self.dp_delta
        self.optimizer.expected_batch_size = self.rate * run.rows
        self.optimizer.generator = run.generator
        hooks = GradSampleHooks(run.model, loss_reduction="mean")
        with warnings.catch_warnings():
            # Images need no gradient; what the hook of a first layer reads is its output's.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            try:
                yield
            finally:
                hooks.cleanup()
                _forget(run.model)

    def sample(self, run: TrainingRun) -> Tensor:
        """Draw each row with the same probability, apart from the others (R,); maybe none."""
        # On the host, which has to know how many they are. In float64 the probability is the rate
        # to 1e-16.
        chances = torch.rand(run.rows, generator=on_host(run.generator), dtype=torch.float64)
        rows = (chances < self.rate).nonzero().flatten()
        self.optimizer.drawn = len(rows)
        return rows.to(run.generator.device, non_blocking=True)

    def spent(self) -> Mapping[str, float]:
        """Return what all steps so far have spent, as values of curves; nothing without noise."""
        if self.noise_multiplier == 0:
            return {}
        epsilon = spent_epsilon(
            self.noise_multiplier, self.rate, steps=self.steps, delta=self.delta
        )
        return {EPSILON_CURVE: epsilon, DELTA_CURVE: self.delta}

    def restore(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Go on counting after the steps that an interrupted training took."""
        del model
        self.steps = int(state["steps"])

    def _count(self, optimizer: NoisyOptimizer) -> None:
        del optimizer
        self.steps += 1


def spent_epsilon(noise_multiplier: float, rate: float, *, steps: int, delta: float) -> float:
    """Return the dp_epsilon of Poisson-sampled Gaussian steps, as opacus' RDPAccountant has it.

    Source: Mironov et al., Renyi differential privacy of the sampled Gaussian mechanism, 2019.
    """
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    with warnings.catch_warnings():
        # The bound at the last order holds as well; another order might yield a tighter one.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        epsilon, _ = rdp.get_privacy_spent(
            orders=RDPAccountant.DEFAULT_ALPHAS,
            rdp=_one_step(noise_multiplier, rate) * steps,
            delta=delta,
        )
    return float(epsilon)


@lru_cache(maxsize=64)  # it takes a tenth of a second, and twins and epochs share it
def _one_step(noise_multiplier: float, rate: float) -> Any:
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    return rdp.compute_rdp(
        q=rate, noise_multiplier=noise_multiplier, steps=1, orders=RDPAccountant.DEFAULT_ALPHAS
    )


def check_rowwise(model: nn.Module) -> None:
    """Raise InputError, naming the layer, where the gradient of a row is not its own."""
    from opacus.validators import ModuleValidator

    for name, module in model.named_modules():
        known = [kind for kind in type(module).__mro__ if kind in ModuleValidator.VALIDATORS]
        if known and ModuleValidator.VALIDATORS[known[0]](module):
            raise InputError(
                f"dp_sgd: {name or 'the model'} is a {type(module).__name__}, which does not keep "
                "the rows of a batch apart; take norm: group, or another layer"
            )
        own = next(module.parameters(recurse=False), None) is not None
        if own and next(module.buffers(), None) is not None:
            raise InputError(
                f"dp_sgd: {name or 'the model'} is a {type(module).__name__}, which has both "
                "weights and buffers; opacus takes them in modules of their own only"
            )


def _forget(model: nn.Module) -> None:
    """Take away what opacus leaves on weights and modules when its hooks are gone."""
    for weight in model.parameters():
        weight.__dict__.pop("summed_grad", None)
    for module in model.modules():
        for left in ("activations", "max_batch_len"):
            module.__dict__.pop(left, None)
