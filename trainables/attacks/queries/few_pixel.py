"""Few-pixel attack: random search over which pixels to overwrite, with scores alone.

Axes: B batch, R rows of it that still resist, C channels, H, W, P pixels, M of them moved.
"""

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.search import halvings, random_search
from trainables.errors import InputError

_FIRST_SHARE = 0.3
"""Share of the pixels that the first step moves (Sparse-RS, L0)."""


@in_batches
def few_pixel(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    pixels: int = 5,
    steps: int = 500,
    early_stop: bool = True,
    queries: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Overwrite at most `pixels` pixels, found by local search; asks for scores only.

    x (B, C, H, W) in [0, 1], y (B,). A pixel is a place with all its channels; what it is
    overwritten with is 0 or 1 in each. A step restores some of the pixels and overwrites others,
    visiting all places once before any twice. An image costs one query for the start and one a
    step, and with `early_stop` one for the clean image. `queries` (B,) int64, on the device of x,
    grows by that in place. Where an image resists, or without `early_stop`, the widest margin is
    returned. Raises InputError where no pixel may change and ValueError without a generator.
    Source: Croce et al., 2022 (Sparse-RS, Algorithm 2), after Narodytska and Kasiviswanathan, 2017.
    """
    if generator is None:
        raise ValueError("the few-pixel attack needs a generator")
    if pixels < 1:
        raise InputError(f"few_pixel: pixels must be 1 or more, not {pixels}")
    places = x[0, 0].numel()
    budget, clean = min(pixels, places), x.flatten(2)
    order = _draw((len(x), places), generator).argsort(1)
    visited = 0

    def propose(best: Tensor, rows: Tensor, number: int) -> Tensor:
        nonlocal visited
        flat, original = best.flatten(2).clone(), clean[rows]
        moved = budget if number == 0 else _moved(number - 1, steps, budget)
        changed = (flat != original).any(1)
        back = _some_of(changed, moved, _draw((len(x), places), generator)[rows])
        flat = torch.where(back[:, None], original, flat)
        turn = torch.arange(visited, visited + moved, device=x.device) % places
        visited += moved
        into = order[rows][:, turn][:, None].expand(-1, x.shape[1], -1)
        bits = _draw((len(x), x.shape[1], moved), generator)[rows] < 0.5
        return flat.scatter(2, into, _new_values(original.gather(2, into), bits)).view_as(best)

    return random_search(
        model, x, y, propose, proposals=steps + 1, early_stop=early_stop, queries=queries
    )


def _draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _moved(step: int, steps: int, budget: int) -> int:
    """Return how many pixels a step moves, on the schedule stretched to `steps`."""
    return max(round(_FIRST_SHARE * budget * 0.5 ** halvings(step, steps)), 1)


def _some_of(changed: Tensor, count: int, keys: Tensor) -> Tensor:
    """Keep the `count` marks of each row with the highest keys, or all of fewer (R, H W)."""
    keys = keys.masked_fill(~changed, -1.0)
    marks = torch.zeros_like(changed).scatter(1, keys.topk(count, dim=1).indices, True)
    return marks & changed


def _new_values(original: Tensor, bits: Tensor) -> Tensor:
    """Return the bits, or where they are the pixel as it was, the opposite (R, C, M)."""
    bits = bits.to(original.dtype)
    return torch.where((bits == original).all(1, keepdim=True), 1 - bits, bits)
