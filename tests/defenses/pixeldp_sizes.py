"""The sizes that PixelDP certifies, computed by bisection, with nothing of the code under test."""

import math


def largest_size(sigma: float, sensitivity: float) -> float:
    """Return the largest L2 size, in pixel units, that any counts could certify."""
    return size_of_bounds(1.0, 0.0, sigma) / sensitivity


def size_of_bounds(p_lb: float, p_ub: float, sigma: float) -> float:
    """Return the size that follows from bounds on the share of the top label and the next."""
    best = 0.0
    for step in range(1, 301):
        delta = step / 1000

        def robust(eps: float, delta: float = delta) -> bool:
            return p_lb >= math.exp(2 * eps) * p_ub + (1 + math.exp(eps)) * delta

        low, high = 0.0, 1.0
        if robust(1.0):
            low = 1.0
        elif robust(0.0):
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if robust(middle) else (low, middle)
        best = max(best, sigma * low / math.sqrt(2 * math.log(1.25 / delta)))
    return best
