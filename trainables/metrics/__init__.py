"""Every metric, declared once: its meaning, better direction, unit and kind of interval."""

from trainables.metrics.attacks import CURVE_MULTIPLES, UNBOUNDED, curve_metric
from trainables.metrics.metric import Direction, Metric
from trainables.metrics.registry import METRICS, at_eps, at_threshold, metric

__all__ = [
    "CURVE_MULTIPLES",
    "METRICS",
    "UNBOUNDED",
    "Direction",
    "Metric",
    "at_eps",
    "at_threshold",
    "curve_metric",
    "metric",
]
