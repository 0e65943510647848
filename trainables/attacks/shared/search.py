"""Random search on the margin, the loop that every score-only attack shares.

Axes: B batch, R rows of it that still resist, C channels, H, W.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.losses import margin
from trainables.attacks.shared.rows import keep, places

Propose = Callable[[Tensor, Tensor, int], Tensor]
"""(best images so far (R, C, H, W), rows of the batch (R,), number of the proposal from 0) -> the
next images to ask about (R, C, H, W); at number 0 the best images so far are the clean ones."""
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps of 10,000 after which a proposal changes half as much (Square; Sparse-RS has the same)."""


def random_search(
    model: Scores,
    x: Tensor,
    y: Tensor,
    propose: Propose,
    *,
    proposals: int,
    early_stop: bool,
    queries: Tensor | None = None,
) -> Tensor:
    """Keep, of every image, the proposal with the widest margin of a wrong class.

    `early_stop` asks about the clean images first and leaves those alone that are misclassified,
    then takes an image out of the batch as soon as a proposal is. `propose` draws for the whole
    batch and picks its rows, so that no image's draws depend on which others resist. `queries` (B,)
    int64, on the device of x, grows by one whenever an image's scores are asked. No gradient is
    computed.
    """
    rows = torch.arange(len(x), device=x.device)
    best, best_margin = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    if early_stop:
        _, fooled = _ask(model, x, y, rows, queries)
        rows = rows[places(~fooled)]
    for number in range(proposals):
        if len(rows) == 0:
            break
        proposed = propose(best[rows], rows, number)
        row_margin, fooled = _ask(model, proposed, y, rows, queries)
        better = row_margin > best_margin[rows]
        if early_stop:
            better |= fooled  # a tie of scores may be a success that no wider margin shows
        keep(best, rows, proposed, better)
        keep(best_margin, rows, row_margin, better)
        if early_stop:
            rows = rows[places(~fooled)]
    return best


def halvings(step: int, steps: int) -> int:
    """Return how often the size of a proposal was halved, the schedule stretched to `steps`."""
    position = 10_000 * step // steps
    return sum(position > halving for halving in _HALVINGS)


def _ask(
    model: Scores, images: Tensor, y: Tensor, rows: Tensor, queries: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the margin and whether it is misclassified, of each row."""
    if queries is not None:
        queries[rows] += 1
    with torch.no_grad():
        scores = model(images)
    return margin(scores, y[rows]), scores.argmax(1) != y[rows]
