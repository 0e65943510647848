"""How often intervals hold the truth, and how wide they are: few items, and values at an edge.

    python -m benchmarks.interval_coverage [--repeats 1000]

Each line draws scores of a known law again and again. Coverage should be 0.95 or more; its own
interval is that of the number of repeats. Where the truth is at an end of its range (an area of 1,
a calibration error of 0), an interval covers it always or never.

Axes: R repeats, M members, N non-members or items.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trainables.metrics import intervals
from trainables.metrics.calibration import calibration_error
from trainables.records.value import Measured, MetricValue, Missing
from trainables.threats.membership.rates import tpr_at_fpr

Floats = NDArray[np.float64]
Draw = np.random.Generator
SIZES = (4, 10, 30, 270)
AREAS = (0.5, 0.9, 0.99, 1.0)
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Law:
    """What is drawn and measured once, with the truth that its interval should hold."""

    metric: str
    words: str
    n: int
    truth: float
    measured: Callable[[Draw], MetricValue]


def scores(area: float, sizes: tuple[int, int], draw: Draw) -> tuple[Floats, Floats]:
    """Draw scores (M,), (N,) of two normal laws of one spread that have such an area."""
    shift = math.sqrt(2) * float(stats.norm.ppf(area)) if area < 1 else 100.0
    return draw.normal(shift, 1, sizes[0]), draw.normal(0, 1, sizes[1])


def of_areas() -> Iterator[Law]:
    """Yield areas under the curve and true-positive rates at 1 %, of n members and n others."""
    for n in SIZES:
        for area in AREAS:

            def measured(draw: Draw, n: int = n, area: float = area) -> Measured:
                return intervals.auc(*scores(area, (n, n), draw))

            def rated(draw: Draw, n: int = n, area: float = area) -> MetricValue:
                return tpr_at_fpr(*scores(area, (n, n), draw), 0.01)

            rate = float(stats.norm.sf(stats.norm.isf(0.01) - math.sqrt(2) * stats.norm.ppf(area)))
            yield Law("auc", f"area {area:g}", n, area, measured)
            yield Law("tpr_at_fpr_0_01", f"area {area:g}", n, rate, rated)


def of_means() -> Iterator[Law]:
    """Yield means of confidences, and of radii of which 95 % are 0."""
    for n in SIZES:

        def sure(draw: Draw, n: int = n) -> Measured:
            return intervals.mean(draw.beta(8, 1, n), low=0.0, high=1.0)

        def radii(draw: Draw, n: int = n) -> Measured:
            found = np.where(draw.random(n) < 0.05, draw.uniform(0, 1, n), 0.0)
            return intervals.mean(found, low=0.0, high=8.0)

        yield Law("mean", "sure confidences", n, 8 / 9, sure)
        yield Law("mean", "radii, 95 % zero", n, 0.025, radii)


def of_classes() -> Iterator[Law]:
    """Yield the worst of ten equal classes of n images each."""
    for n in SIZES:
        for share in (0.5, 0.8, 0.95):

            def measured(draw: Draw, n: int = n, share: float = share) -> Measured:
                return intervals.lowest([(int(right), n) for right in draw.binomial(n, share, 10)])

            words = f"10 classes of accuracy {share:g}"
            yield Law("worst_class_accuracy", words, n, share, measured)


def of_calibration() -> Iterator[Law]:
    """Yield the calibration error of a network without one."""
    for n in SIZES:

        def measured(draw: Draw, n: int = n) -> Measured:
            confidence = 0.3 + 0.7 * draw.beta(2, 1.5, n)
            return calibration_error(confidence, draw.random(n) < confidence, seed=0, resamples=200)

        yield Law("ece", "calibrated", n, 0.0, measured)


def line(law: Law, repeats: int, draw: Draw) -> str:
    """Return how often the interval holds the truth and its mean width, or why there is none."""
    found = [law.measured(draw) for _ in range(repeats)]
    known = [each for each in found if isinstance(each, Measured)]
    reasons = [each.reason for each in found if isinstance(each, Missing)]
    told = f"{law.metric:<22}{law.words:<32}{law.n:>5}{law.truth:>8.3f}  "
    if not known:
        return f"{told}missing: {reasons[0]}"
    holds = sum(each.low - _ROUNDING <= law.truth <= each.high + _ROUNDING for each in known)
    held = intervals.proportion(holds, len(known))
    width = float(np.mean([each.high - each.low for each in known]))
    return f"{told}{held.value:.3f} [{held.low:.3f}, {held.high:.3f}]  {width:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    draw = np.random.default_rng(0)
    print(f"{'metric':<22}{'law':<32}{'n':>5}{'truth':>8}  coverage [95 %]        width")
    for law in (*of_areas(), *of_means(), *of_classes(), *of_calibration()):
        print(line(law, repeats, draw), flush=True)


if __name__ == "__main__":
    main()
