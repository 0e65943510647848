"""Votes of a classifier under noise: counted in memory that does not grow with the draws.

Axes: B batch, C channels, H, W, K classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.deployed.averaging import Draw

Hopeless = Callable[[Tensor, Tensor, int], Tensor]
"""(counts (R, K), rows (R,), draws taken) -> (R,) whether no further draw can help the image.

It is asked of the images that are still drawn for; `rows` says which of the batch they are."""
_ROWS = {"cpu": 128}
_ROWS_ELSEWHERE = 2048
"""Noisy copies that are answered at once: as many as a small network's activations stay in a
core's cache for (more are slower there, and few are on a GPU)."""
_LOOKS = 50
"""Times that hopeless images are looked for on the way."""


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """What a batch was classified as under noise."""

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
    step = draws if hopeless is None else math.ceil(draws / _LOOKS)
    images = max(1, _rows(x) // step)
    parts = []
    with torch.no_grad():
        for start in range(0, len(x), images):
            group = x[start : start + images]
            asked = None if hopeless is None else _from_row(start, hopeless)
            parts.append(_count(draw, group, generator, draws, asked))
    return Votes(
        torch.cat([part.counts for part in parts]),
        torch.cat([part.draws for part in parts]),
        torch.cat([part.log_probabilities for part in parts]),
    )


def _rows(x: Tensor) -> int:
    return _ROWS.get(x.device.type, _ROWS_ELSEWHERE)


def _from_row(start: int, hopeless: Hopeless) -> Hopeless:
    return lambda counts, rows, taken: hopeless(counts, rows + start, taken)


def _count(
    draw: Draw, x: Tensor, generator: torch.Generator, draws: int, hopeless: Hopeless | None
) -> Votes:
    rows = torch.arange(len(x), device=x.device)
    counts = log_sums = torch.empty(0)
    taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    done, between = 0, math.ceil(draws / _LOOKS)
    next_look = between
    while done < draws and len(rows) > 0:
        ahead = draws - done if hopeless is None else min(next_look, draws) - done
        # Parts of one size: a remainder would be a small batch, which is slow.
        parts = math.ceil(ahead / max(1, _rows(x) // len(rows)))
        count = math.ceil(ahead / parts)
        scores = draw(x[rows], count, generator).float()
        if done == 0:
            counts = torch.zeros(len(x), scores.shape[2], dtype=torch.int64, device=x.device)
            log_sums = torch.full(counts.shape, -torch.inf, device=x.device)
        counts[rows] += torch.nn.functional.one_hot(scores.argmax(2), scores.shape[2]).sum(0)
        log_sums[rows] = torch.logaddexp(log_sums[rows], scores.log_softmax(2).logsumexp(0))
        done += count
        taken[rows] = done
        if hopeless is not None and done == next_look:
            rows = rows[~hopeless(counts[rows], rows, done)]
            next_look += between
    return Votes(counts, taken, log_sums - taken[:, None].log())
