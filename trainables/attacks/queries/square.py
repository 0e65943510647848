"""Square attack: random search over square windows, with scores alone.

Axes: B batch, R rows of it that still resist, C channels, H, W, S side of a window.
"""

import math

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius, ball, broadcast
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.rows import per_row
from trainables.attacks.shared.search import Propose, halvings, random_search
from trainables.errors import InputError

_P_INIT = 0.8
"""Share of the image that the first window covers."""
_TILES = 5
"""Tiles along a side of the L2 start."""
_TINY = 1e-12


@in_batches
def square(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    steps: int = 1000,
    early_stop: bool = True,
    queries: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Search the ball by changing one random square window at a time; asks for scores only.

    x (B, C, H, W) in [0, 1], y (B,), eps in pixel units, norm linf or l2. An image costs one query
    for the start and one a step, and with `early_stop` one for the clean image. `queries` (B,)
    int64, on the device of x, grows by that in place. Where an image resists, or without
    `early_stop`, the widest margin is returned. Raises ValueError without a generator.
    Source: Andriushchenko et al., 2020, Algorithms 1 to 3.
    """
    if generator is None:
        raise ValueError("the square attack needs a generator")
    if norm not in _PROPOSALS:
        raise InputError(f"unknown norm {norm!r}; known: {', '.join(_PROPOSALS)}")
    radius = broadcast(eps, x).expand(len(x), 1, 1, 1)
    propose = _PROPOSALS[norm](x, radius, steps, generator)
    return random_search(
        model, x, y, propose, proposals=steps + 1, early_stop=early_stop, queries=queries
    )


def _window_side(step: int, steps: int, area: int, smallest: int) -> int:
    """Return the side of the window at a step, on the paper's schedule stretched to `steps`."""
    share = _P_INIT / 2 ** halvings(step, steps)
    return max(round(math.sqrt(share * area)), smallest)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    bits = torch.randint(2, shape, generator=generator, device=generator.device)
    return 2.0 * bits - 1


def _corners(count: int, most: int, generator: torch.Generator) -> Tensor:
    """Draw the place of a window for each image, from 0 to `most` (B,)."""
    return torch.randint(most + 1, (count,), generator=generator, device=generator.device)


def _window(rows: int, channels: int, top: Tensor, left: Tensor, side: int) -> tuple[Tensor, ...]:
    """Return the index of one window a row: images[index] has shape (R, C, S, S)."""
    device, steps = top.device, torch.arange(side, device=top.device)
    return (
        torch.arange(rows, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(1, -1, 1, 1),
        (top[:, None] + steps)[:, None, :, None],
        (left[:, None] + steps)[:, None, None, :],
    )


def _linf_proposals(x: Tensor, radius: Tensor, steps: int, generator: torch.Generator) -> Propose:
    channels, height, width = x.shape[1:]

    def propose(best: Tensor, rows: Tensor, number: int) -> Tensor:
        clean, limit, count = x[rows], radius[rows], len(rows)
        if number == 0:
            stripes = _signs((len(x), channels, 1, width), generator)[rows]
            return (clean + limit * stripes).clamp(0, 1)
        side = min(_window_side(number - 1, steps, height * width, 1), height, width)
        top = _corners(len(x), height - side, generator)[rows]
        left = _corners(len(x), width - side, generator)[rows]
        window = _window(count, channels, top, left, side)
        proposed = best.clone()
        # Adding 2 eps and returning to the ball leads to its border, wherever one began.
        sign = _signs((len(x), channels, 1, 1), generator)[rows]
        proposed[window] = (clean[window] + limit * sign).clamp(0, 1)
        return proposed

    return propose


def _pyramid(height: int, width: int, device: torch.device) -> Tensor:
    """Return the bump of eq. 2: 1 / k^2 summed from the border to the middle (height, width)."""
    levels = max(height, width) // 2 + 1
    terms = 1.0 / torch.arange(1, levels + 1, device=device) ** 2
    sums = terms.flip(0).cumsum(0).flip(0)
    down = (torch.arange(height, device=device) - height // 2).abs()
    across = (torch.arange(width, device=device) - width // 2).abs()
    return sums[torch.maximum(down[:, None], across[None, :])]


def _bumps(count: int, side: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a bump and its negative side by side, upright or not, of length 1 (B, 1, S, S)."""
    half, device = side // 2, like.device
    upright = torch.cat([_pyramid(half, side, device), -_pyramid(side - half, side, device)])
    upright = (upright / upright.norm()).to(like)
    turned = torch.randint(2, (count, 1, 1, 1), generator=generator, device=generator.device)
    return torch.where(turned == 1, upright.T, upright)


def _lengths(windows: Tensor) -> Tensor:
    """Return the L2 norm of each channel of each row (R, C, 1, 1)."""
    return windows.square().sum(dim=(2, 3), keepdim=True).sqrt()


def _l2_proposals(x: Tensor, radius: Tensor, steps: int, generator: torch.Generator) -> Propose:
    channels, height, width = x.shape[1:]
    direction, smallest = ball("l2").direction, min(3, height, width)

    def bumps(side: int, rows: Tensor) -> Tensor:
        signs = _signs((len(x), channels, 1, 1), generator)
        return (_bumps(len(x), side, x, generator) * signs)[rows]

    def start(clean: Tensor, limit: Tensor, rows: Tensor) -> Tensor:
        delta, tile = torch.zeros_like(clean), max(min(height, width) // _TILES, 1)
        for top in range(0, height - tile + 1, tile):
            for left in range(0, width - tile + 1, tile):
                delta[:, :, top : top + tile, left : left + tile] = bumps(tile, rows)
        return (clean + limit * direction(delta)).clamp(0, 1)

    def propose(best: Tensor, rows: Tensor, number: int) -> Tensor:
        clean, limit, count = x[rows], radius[rows], len(rows)
        if number == 0:
            return start(clean, limit, rows)
        side = _window_side(number - 1, steps, height * width, smallest)
        side = min(side + 1 - side % 2, height, width)
        into, out_of = (
            _window(
                count,
                channels,
                _corners(len(x), height - side, generator)[rows],
                _corners(len(x), width - side, generator)[rows],
                side,
            )
            for _ in range(2)
        )
        delta = best - clean
        rest = delta.clone()
        rest[into] = 0.0
        rest[out_of] = 0.0
        freed = _lengths(delta).square() - _lengths(rest).square()
        unused = limit.square() - per_row(delta.flatten(1).norm(dim=1), delta).square()
        available = (freed.clamp_min(0) + unused.clamp_min(0) / channels).sqrt()
        old = delta[into]
        new = bumps(side, rows) + old / (_lengths(old) + _TINY)
        rest[into] = new / (_lengths(new) + _TINY) * available
        return (clean + limit * direction(rest)).clamp(0, 1)

    return propose


_PROPOSALS = {"linf": _linf_proposals, "l2": _l2_proposals}
