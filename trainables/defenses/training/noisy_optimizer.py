"""The optimiser of a differentially private training, apart since opacus imports slowly."""

from typing import Any

from opacus.optimizers import DPOptimizer
from torch import Tensor

from trainables.errors import InputError


class NoisyOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """opacus' optimiser, which clips and adds noise, on steps that may have drawn no rows."""

    drawn = 0
    """Rows of the step that is taken."""

    def pre_step(self, closure: Any = None) -> Any:
        """Clip each row's gradient, sum, add noise and divide by the expected rows.

        Raises InputError where the rows drawn are not the gradients given.
        """
        for weight in self.params:
            given = weight.grad_sample
            if self.drawn == 0:
                given = weight.new_zeros((0, *weight.shape))
            elif not isinstance(given, Tensor) or len(given) != self.drawn:
                raise InputError(
                    "dp_sgd needs one gradient a row and a weight; leave out defenses that add "
                    "views, and weights that the network does not use"
                )
            # Where a GPU computes in bfloat16, norms of it would clip at more than the norm asked.
            weight.grad_sample = given.to(weight.dtype)
        return super().pre_step(closure)
