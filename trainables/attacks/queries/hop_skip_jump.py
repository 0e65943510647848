"""HopSkipJump: a walk along the border of the true class, with labels alone.

Axes: B batch, R rows of it that walk, C channels, H, W, P probes of an image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.attacks.shared.ascent import Scores
from trainables.attacks.shared.balls import Radius, ball, broadcast, l2_norms
from trainables.attacks.shared.batching import in_batches
from trainables.attacks.shared.losses import margin
from trainables.attacks.shared.rows import keep, per_row, places

_STARTS = 20
"""Images that are tried as a misclassified one to start from."""
_FIRST_PROBE = 0.1
"""Length of the first probes, a tenth of the pixel range."""
_JUMPS = 8
"""Lengths of a step that are tried, each half as long as the one before."""
_MOST_HALVINGS = 20
"""Halvings of an interval, at most: float32 resolves little finer."""
_AT_ONCE = 1024
"""Probes that are asked about at once, all images together."""
_EXPONENT = {"linf": 2.0, "l2": 1.5}
"""The border is found to a share of d^-exponent of the distance, d the pixel values of an image."""


@in_batches
def hop_skip_jump(
    model: Scores,
    x: Tensor,
    y: Tensor,
    *,
    eps: Radius,
    norm: str = "linf",
    steps: int = 10,
    draws: int = 100,
    early_stop: bool = True,
    queries: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Walk along the border of the true class towards the image; asks for labels only.

    x (B, C, H, W) in [0, 1], y (B,), eps in pixel units, norm linf or l2. An image starts from
    another one of its batch or from uniform noise, whichever is misclassified. Each step finds the
    border on the way to the clean image by bisection, estimates the border's normal there from the
    labels of probes around it, `draws` times the square root of the step's number, and jumps along
    it. Of the scores only the order counts: an image whose scores are all equal, as where a
    detector rejects it, does not count as misclassified.

    `early_stop` stops an image once it is within eps, and moves it to the edge of the ball if it
    stays misclassified there. Without it, the nearest one found is returned. What is farther than
    eps is cut back to the ball. An image costs one query for the clean image, up to 20 for a start,
    `draws` times (1 + sqrt(2) + .. + sqrt(steps)) for probes and up to 28 a step besides; `queries`
    (B,) int64, on the device of x, grows by that in place. Raises ValueError without a generator.
    Source: Chen, Jordan and Wainwright, 2020, Algorithms 1 and 2 (HopSkipJump).
    """
    if generator is None:
        raise ValueError("hop_skip_jump needs a generator")
    shape = ball(norm)
    walk = _Walk(model, x, y, norm, queries, generator)
    radius = broadcast(eps, x).expand(len(x), 1, 1, 1)
    rows = torch.arange(len(x), device=x.device)
    rows, near = walk.start(rows[places(~walk.wrong(x, rows))])
    best, nearest = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
    for step in range(1, steps + 2):
        near = walk.border(near, rows)
        distance = walk.distance(near, rows)
        closer = distance < nearest[rows]
        keep(best, rows, near, closer)
        keep(nearest, rows, distance, closer)
        if early_stop:
            left = places(nearest[rows] > radius[rows].flatten())
            rows, near, distance = rows[left], near[left], distance[left]
        if step > steps or len(rows) == 0:
            break
        size = torch.full_like(distance, _FIRST_PROBE) if step == 1 else distance / x[0].numel()
        normal = walk.normal(near, rows, size, math.ceil(draws * math.sqrt(step)))
        near = walk.jump(near, rows, shape.direction(normal), distance / math.sqrt(step))
    inside = places((nearest <= radius.flatten()) & (nearest > 0))
    if early_stop and len(inside) > 0:
        change = (best[inside] - x[inside]) * (radius[inside] / per_row(nearest[inside], x))
        edge = (x[inside] + shape.project(change, radius[inside])).clamp(0, 1)
        keep(best, inside, edge, walk.wrong(edge, inside))
    cut = (x + shape.project(best - x, radius)).clamp(0, 1)
    return torch.where(per_row(nearest, x) <= radius, best, cut)


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """What is asked of the model on the way, and where an image is."""

    model: Scores
    x: Tensor
    y: Tensor
    norm: str
    queries: Tensor | None
    generator: torch.Generator

    def wrong(self, images: Tensor, rows: Tensor) -> Tensor:
        """Ask whether images of rows (R,), of which some may repeat, are misclassified."""
        if self.queries is not None:
            self.queries.index_add_(0, rows, torch.ones_like(rows))
        with torch.no_grad():
            return margin(self.model(images), self.y[rows]) > 0

    def distance(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the distance of images from the clean ones (R,)."""
        change = images - self.x[rows]
        return l2_norms(change) if self.norm == "l2" else change.flatten(1).abs().amax(1)

    def start(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows for which a misclassified image was found, and those images."""
        found, waiting = self.x.clone(), rows
        for number in range(_STARTS):
            if len(waiting) == 0:
                break
            tried = self._uniform(self.x.shape)
            if number % 2 == 0:
                order = torch.rand(len(self.x), generator=self.generator, device=self.x.device)
                tried = self.x[order.argsort()]
            fooled = self.wrong(tried[waiting], waiting)
            keep(found, waiting, tried[waiting], fooled)
            waiting = waiting[places(~fooled)]
        rows = rows[places(~torch.isin(rows, waiting))]
        return rows, found[rows]

    def border(self, far: Tensor, rows: Tensor) -> Tensor:
        """Return misclassified images just past the border, on the way from the clean ones."""
        exponent = _EXPONENT[self.norm] * math.log2(self.x[0].numel())
        low = torch.zeros(len(rows), device=far.device)
        high, found = torch.ones_like(low), far
        for _ in range(min(math.ceil(exponent), _MOST_HALVINGS)):
            middle = (low + high) / 2
            tried = self._between(far, rows, middle)
            fooled = self.wrong(tried, rows)
            found = torch.where(per_row(fooled, found), tried, found)
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        return found

    def normal(self, near: Tensor, rows: Tensor, size: Tensor, count: int) -> Tensor:
        """Estimate the border's normal (R, C, H, W), towards the misclassified side.

        Of each probe the answer counts, less the mean answer of the image's probes.
        """
        length, balance = per_row(size, near), torch.zeros_like(size)
        moved, answered = torch.zeros_like(near), torch.zeros_like(near)
        most = max(1, _AT_ONCE // len(self.x))
        for begun in range(0, count, most):
            parts = min(most, count - begun)
            # Drawn for the whole batch, so that no draw depends on which others still walk.
            unit = torch.stack([self._unit()[rows] for _ in range(parts)])
            probes = (near + length * unit).clamp(0, 1)
            fooled = self.wrong(probes.flatten(0, 1), rows.repeat(parts)).view(parts, -1)
            signs = 2.0 * fooled.to(near.dtype) - 1
            change = (probes - near) / length
            balance += signs.sum(0)
            moved += change.sum(0)
            answered += (signs.view(*signs.shape, 1, 1, 1) * change).sum(0)
        mean = per_row(balance / count, near)
        return torch.where(mean.abs() == 1, mean * moved, answered - mean * moved)

    def jump(self, near: Tensor, rows: Tensor, direction: Tensor, size: Tensor) -> Tensor:
        """Go along a direction as far as `size` (R,), or half as far, and so on, until the image is
        wrong; stay where none is.
        """
        found, done = near, torch.zeros_like(size, dtype=torch.bool)
        for number in range(_JUMPS):
            # All are asked each time: to look which are done would wait for the device.
            tried = (near + per_row(size / 2**number, near) * direction).clamp(0, 1)
            fooled = self.wrong(tried, rows) & ~done
            found = torch.where(per_row(fooled, found), tried, found)
            done = done | fooled
        return found

    def _between(self, far: Tensor, rows: Tensor, share: Tensor) -> Tensor:
        """Return images at a share (R,) of the way from the clean ones to others."""
        clean = self.x[rows]
        if self.norm == "l2":
            return clean + per_row(share, clean) * (far - clean)
        limit = per_row(share * self.distance(far, rows), clean)
        return clean + torch.clamp(far - clean, -limit, limit)

    def _uniform(self, shape: torch.Size) -> Tensor:
        x = self.x
        return torch.rand(shape, generator=self.generator, device=x.device, dtype=x.dtype)

    def _unit(self) -> Tensor:
        """Draw a direction of L2 length 1 for each image (B, C, H, W)."""
        if self.norm == "linf":
            drawn = 2 * self._uniform(self.x.shape) - 1
        else:
            x = self.x
            drawn = torch.randn(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)
        return ball("l2").direction(drawn)
