"""Mean probabilities of several answers, as scores that can be differentiated.

Axes: B batch, C channels, H, W, K classes.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainables.deployed.predictor import Surface
from trainables.host_draws import on_host

Answer = Callable[[Tensor, torch.Generator], Tensor]
"""(x (B, C, H, W), generator) -> scores (B, K) of one draw, independent from image to image."""
Draw = Callable[[Tensor, int, torch.Generator], Tensor]
"""(x (B, C, H, W), count, generator) -> scores (count, B, K) of that many independent draws."""
_ATTACK_DRAWS = (10, 20)
"""Fewest and most draws that an attack's gradient is averaged over: fewer are too noisy a
direction, more than AutoAttack's 20 change it little at many times the cost."""
_ROWS = 512
"""Images that are answered at once, so that memory does not grow with the draws."""
_HELD_PIXELS = 2**20
"""Pixel values whose graph is held for the way back; of more, parts are computed a second time."""
_SEEDS = 2**62


def log_mean_softmax(scores: Sequence[Tensor]) -> Tensor:
    """Return the log of the mean softmax (B, K) of several scores (B, K)."""
    return log_sum_softmax(scores) - math.log(len(scores))


def log_sum_softmax(scores: Sequence[Tensor]) -> Tensor:
    """Return the log of the summed softmax (B, K) of several scores (B, K): the mean's, shifted."""
    return torch.stack([part.log_softmax(1) for part in scores]).logsumexp(0)


def log_mean_softmax_of_draws(
    draw: Draw, x: Tensor, generator: torch.Generator, *, draws: int
) -> Tensor:
    """Return the log of the mean softmax (B, K) over fresh draws, differentiable in x (B, C, H, W).

    Draws run in parts of at most 512 rows, or one draw. Where the graph of all would be large,
    each part is computed again on the way back, under its own seed, and one graph held at a time.
    """
    at_once = max(1, _ROWS // max(1, len(x)))
    counts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    seeds = torch.randint(_SEEDS, (len(counts),), generator=on_host(generator)).tolist()
    again = torch.is_grad_enabled() and draws * x.numel() > _HELD_PIXELS
    total: Tensor | None = None
    for count, seed in zip(counts, seeds, strict=True):
        part: Tensor = (
            checkpoint(
                _sum_of_draws, draw, x, count, seed, use_reentrant=False, preserve_rng_state=False
            )
            if again
            else _sum_of_draws(draw, x, count, seed)
        )
        total = part if total is None else torch.logaddexp(total, part)
    assert total is not None
    return total - math.log(draws)


def of_copies(answer: Answer) -> Draw:
    """Draw by answering to as many copies of the images as there are to be draws."""

    def draw(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        scores = answer(x.repeat(count, 1, 1, 1), generator)
        return scores.reshape(count, len(x), scores.shape[1])

    return draw


def averaged_surface(draw: Draw, draws: int) -> Surface:
    """Return the surface of a predictor that averages `draws`: 10 to 20 fresh ones at each step."""
    fewest, most = _ATTACK_DRAWS
    attacked = min(max(draws, fewest), most)

    def scores(x: Tensor, generator: torch.Generator) -> Tensor:
        return log_mean_softmax_of_draws(draw, x, generator, draws=attacked)

    return Surface(scores, "eot", attacked)


def _sum_of_draws(draw: Draw, x: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator(x.device).manual_seed(seed)
    return draw(x, count, generator).log_softmax(2).logsumexp(0)
