"""Every metric by name."""

import re
from collections.abc import Mapping
from dataclasses import replace

from trainables.errors import InputError
from trainables.metrics.attacks import OF_ATTACKS
from trainables.metrics.certification import CERTIFICATION
from trainables.metrics.fixed import FIXED
from trainables.metrics.inversion import INVERSION
from trainables.metrics.membership import MEMBERSHIP
from trainables.metrics.metric import Metric
from trainables.metrics.poisoning import POISONING

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (*FIXED, *MEMBERSHIP, *INVERSION, *CERTIFICATION, *POISONING, *OF_ATTACKS)
}

_AT_EPS = re.compile(r"^(?P<base>.+)_at_(?P<eps>\d+\.\d{4})$")
_AT_THRESHOLD = re.compile(r"^(?P<base>certified_accuracy|certified_precision)_at_(?P<T>[\d.]+)$")


def at_eps(name: str, eps: float) -> str:
    """Name a metric that was measured at another radius than the data set's standard one."""
    return f"{name}_at_{eps:.4f}"


def at_threshold(name: str, threshold: float) -> str:
    """Name a metric of those certificates whose radius is a threshold at least."""
    return f"{name}_at_{threshold:g}"


def metric(name: str) -> Metric:
    """Look a metric up, also one that carries `_at_<eps>`; InputError names the known ones."""
    if name in METRICS:
        return METRICS[name]
    if match := _AT_THRESHOLD.match(name):
        base, text = METRICS[match["base"]], f"Counts radii of at least {match['T']} (L2)."
        return replace(base, name=name, meaning=f"{base.meaning} {text}")
    match = _AT_EPS.match(name)
    if match and match["base"] in METRICS:
        base = METRICS[match["base"]]
        return replace(base, name=name, meaning=f"{base.meaning} At eps {match['eps']}.")
    raise InputError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
