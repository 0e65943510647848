"""Images crafted on another model, in the hope that they fool this one as well."""

import torch
from torch import Tensor

from trainables.attacks.pgd import pgd
from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius
from trainables.attacks.shared.batching import in_batches


@in_batches
def transfer(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    surrogate: Scores,
    loss: str = "ce",
    steps: int = 20,
    step_size: Radius | None = None,
    random_start: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attack a surrogate with all steps of pgd and return the result; the model is not queried.

    x (B, C, H, W) in [0, 1], y (B,), eps and step_size in pixel units (step_size defaults to
    2.5 eps / steps), surrogate: images -> scores. The last iterate is far beyond the surrogate's
    border, which transfers better than the first image that fools it. Raises ValueError where a
    random start has no generator. Source: Papernot et al., 2016 (Transferability).
    """
    del model
    return pgd(
        surrogate,
        x,
        y,
        eps=eps,
        norm=norm,
        loss=loss,
        steps=steps,
        step_size=step_size,
        random_start=random_start,
        early_stop=False,
        generator=generator,
    )
