"""Votes of a classifier under noise: counted in memory that does not grow with the draws.

Axes: B batch, C channels, H, W, K classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.defenses.averaging import Draw

Hopeless = Callable[[Tensor, int], Tensor]
"""(counts (B, K), draws taken) -> (B,) whether no further draw can help the image."""
_ROWS = 512
"""Noisy copies that are answered at once: about what a core's cache holds of a small network."""
_IMAGES = 8
"""Images that are drawn for at once, so that what does not depend on the noise is shared."""
_LOOKS = 50
"""Times that hopeless images are looked for on the way."""


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """What a batch was taken for under noise."""

    counts: Tensor
    """(B, K) int64, draws whose largest score was that class."""
    draws: Tensor
    """(B,) int64, draws that were taken: fewer than asked for where the image was hopeless."""
    log_probabilities: Tensor
    """(B, K) log of the mean softmax over the draws."""

    @property
    def winner(self) -> Tensor:
        """(B,) the class with the most votes."""
        return self.counts.argmax(1)


def count_votes(
    draw: Draw,
    x: Tensor,
    generator: torch.Generator,
    *,
    draws: int,
    hopeless: Hopeless | None = None,
) -> Votes:
    """Classify `draws` noisy copies of each image x (B, C, H, W).

    An image that is `hopeless` at one of 50 looks on the way is drawn no further.
    """
    with torch.no_grad():
        parts = [
            _count(draw, group, generator, draws, hopeless) for group in torch.split(x, _IMAGES)
        ]
    return Votes(
        torch.cat([part.counts for part in parts]),
        torch.cat([part.draws for part in parts]),
        torch.cat([part.log_probabilities for part in parts]),
    )


def _count(
    draw: Draw, x: Tensor, generator: torch.Generator, draws: int, hopeless: Hopeless | None
) -> Votes:
    rows = torch.arange(len(x), device=x.device)
    counts = log_sums = torch.empty(0)
    taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    done, between = 0, max(1, math.ceil(draws / _LOOKS))
    next_look = between
    while done < draws and len(rows) > 0:
        ahead = draws - done if hopeless is None else min(next_look, draws) - done
        count = min(ahead, max(1, _ROWS // len(rows)))
        scores = draw(x[rows], count, generator).float()
        if done == 0:
            counts = torch.zeros(len(x), scores.shape[2], dtype=torch.int64, device=x.device)
            log_sums = torch.full(counts.shape, -torch.inf, device=x.device)
        counts[rows] += torch.nn.functional.one_hot(scores.argmax(2), scores.shape[2]).sum(0)
        log_sums[rows] = torch.logaddexp(log_sums[rows], scores.log_softmax(2).logsumexp(0))
        done += count
        taken[rows] = done
        if hopeless is not None and done == next_look:
            rows = rows[~hopeless(counts[rows], done)]
            next_look += between
    return Votes(counts, taken, log_sums - taken[:, None].log())
