"""Every metric, declared once: its meaning, better direction, unit and kind of interval."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter, methodcaller
from typing import Literal

from trainables.attacks import VARIANTS, Variant, variant
from trainables.errors import InputError

Direction = Literal["maximize", "minimize", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One declared metric."""

    name: str
    meaning: str
    direction: Direction
    unit: str
    interval: str
    """How the 95 % interval is computed."""
    worst: float | None = None
    """The worst value possible, where there is one: the reference of the hypervolume."""
    source: str = ""
    may_be_missing: bool = False
    """Whether some deployed models have no value; such a metric can be no objective."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured value with the ends of its 95 % interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise ValueError(
                f"a metric must be finite, but got {self}; report Missing with a reason"
            )


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that could not be measured, and why."""

    reason: str


MetricValue = Measured | Missing

WILSON = "Wilson score interval"
MEAN = "normal interval of the mean"
BOOTSTRAP = "percentile bootstrap, 1,000 resamples"
DELONG = "DeLong"
EXACT = "exact: a count or a single reading, its interval is the value itself"
DIFFERENCE = "Newcombe's interval of a difference of two proportions"
ORDER = "order statistics (binomial ranks)"


def _metric(
    name: str,
    direction: Direction,
    unit: str,
    interval: str,
    meaning: str,
    worst: float | None = None,
    source: str = "",
    may_be_missing: bool = False,
) -> Metric:
    return Metric(
        name=name,
        meaning=meaning,
        direction=direction,
        unit=unit,
        interval=interval,
        worst=worst,
        source=source,
        may_be_missing=may_be_missing,
    )


_FIXED = (
    _metric(
        "clean_accuracy",
        "maximize",
        "fraction",
        WILSON,
        "Share of unattacked images that the deployed model classifies correctly.",
        worst=0.0,
    ),
    _metric(
        "worst_class_accuracy",
        "maximize",
        "fraction",
        WILSON,
        "Clean accuracy of the class on which it is lowest.",
        worst=0.0,
    ),
    _metric(
        "robust_accuracy",
        "maximize",
        "fraction",
        WILSON,
        "Share of all points that stay accepted and right under every attack on every surface, "
        "within the Linf ball of the data set's standard radius.",
        worst=0.0,
        source="Carlini et al., 2019",
    ),
    _metric(
        "robust_accuracy_l2",
        "maximize",
        "fraction",
        WILSON,
        "Share of all points that stay accepted and right under every L2 attack, minimum-norm ones "
        "included, within the L2 ball of the data set's standard radius.",
        worst=0.0,
        source="Carlini et al., 2019",
    ),
    _metric(
        "masking_suspected",
        "minimize",
        "0 or 1",
        EXACT,
        "1 where a sign of gradient masking shows, so that the robust accuracy is not to be "
        "believed; the record's notes say which.",
        source="Athalye et al., 2018; Pintor et al., 2022",
    ),
    _metric(
        "detection_auroc",
        "maximize",
        "fraction",
        DELONG,
        "Area under the ROC of the detector's score: successful adversarial images against the "
        "same images unattacked.",
        worst=0.0,
        source="Lee et al., 2018",
        may_be_missing=True,
    ),
    _metric(
        "detection_tpr_at_fpr_0_05",
        "maximize",
        "fraction",
        WILSON,
        "Share of successful adversarial images found where 5 % of the unattacked are rejected.",
        worst=0.0,
        source="Lee et al., 2018",
        may_be_missing=True,
    ),
    _metric(
        "undetected_success_rate",
        "minimize",
        "fraction",
        WILSON,
        "Share of all points that an attack aimed at the detector too turns wrong and past it.",
        worst=1.0,
        source="Carlini & Wagner, 2017",
    ),
    _metric(
        "clean_rejection_rate",
        "minimize",
        "fraction",
        WILSON,
        "Share of unattacked images that the deployed model rejects.",
        worst=1.0,
    ),
    _metric(
        "ece",
        "minimize",
        "fraction",
        BOOTSTRAP,
        "Expected calibration error: gap between confidence and accuracy over 15 equal bins.",
        worst=1.0,
        source="Guo et al., 2017",
    ),
    _metric("nll", "minimize", "nats", MEAN, "Mean negative log-likelihood of the true class."),
    _metric(
        "mean_confidence", "none", "fraction", MEAN, "Mean probability of the predicted class."
    ),
    _metric(
        "generalization_gap",
        "minimize",
        "fraction",
        DIFFERENCE,
        "Accuracy on the training rows minus accuracy on the held-out rows.",
        worst=1.0,
    ),
    _metric(
        "input_gradient_norm",
        "none",
        "nats per pixel unit",
        MEAN,
        "Mean L2 norm of the gradient of the loss with respect to the image.",
        may_be_missing=True,
    ),
    _metric(
        "membership_auc",
        "minimize",
        "fraction",
        DELONG,
        "Area under the ROC of the attack that tells training rows from unseen ones; "
        "0.5 is no leak.",
        worst=1.0,
        source="Yeom et al., 2018",
    ),
    _metric(
        "membership_balanced_accuracy",
        "minimize",
        "fraction",
        WILSON,
        "Mean of true positive and true negative rate of the membership attack at its threshold.",
        worst=1.0,
        source="Yeom et al., 2018",
    ),
    _metric(
        "tpr_at_fpr_0_01",
        "minimize",
        "fraction",
        WILSON,
        "Share of members found where 1 % of the non-members are accused.",
        worst=1.0,
        source="Carlini et al., 2022",
        may_be_missing=True,
    ),
    _metric(
        "tpr_at_fpr_0_001",
        "minimize",
        "fraction",
        WILSON,
        "Share of members found where 0.1 % of the non-members are accused.",
        worst=1.0,
        source="Carlini et al., 2022",
        may_be_missing=True,
    ),
    _metric(
        "training_seconds",
        "minimize",
        "s",
        MEAN,
        "Time that the training of the deployed model took, all its phases included.",
    ),
    _metric(
        "forward_passes_per_prediction",
        "minimize",
        "passes",
        EXACT,
        "Forward passes of the network behind one deployed prediction.",
    ),
    _metric("latency_ms_p50", "minimize", "ms", ORDER, "Median time of a prediction, batch of 1."),
    _metric(
        "latency_ms_p95",
        "minimize",
        "ms",
        ORDER,
        "95th percentile of the time of a prediction, batch of 1.",
    ),
    _metric(
        "latency_ms_p50_batch128",
        "minimize",
        "ms",
        ORDER,
        "Median time of a prediction, batch of 128.",
    ),
    _metric(
        "latency_ms_p95_batch128",
        "minimize",
        "ms",
        ORDER,
        "95th percentile of the time of a prediction, batch of 128.",
    ),
    _metric(
        "peak_memory_mib",
        "minimize",
        "MiB",
        EXACT,
        "Weights plus the most memory that tensors held while a batch of 128 was predicted.",
    ),
)


CURVE_MULTIPLES = (0.5, 1.5, 2.0, 4.0)
"""Of the standard radius: where robust accuracy is measured too."""
UNBOUNDED = "robust_accuracy_unbounded"


def curve_metric(multiple: float) -> str:
    """Name the robust accuracy at a multiple of the standard radius."""
    return f"robust_accuracy_at_radius_{multiple:g}".replace(".", "_")


def _curve() -> tuple[Metric, ...]:
    at_multiples = (
        _metric(
            curve_metric(multiple),
            "maximize",
            "fraction",
            WILSON,
            f"Robust accuracy at {multiple:g} times the standard Linf radius, by the screen's "
            "attacks.",
            worst=0.0,
        )
        for multiple in CURVE_MULTIPLES
    )
    unbounded = _metric(
        UNBOUNDED,
        "none",
        "fraction",
        WILSON,
        "Robust accuracy in the ball that holds every image; above 0 the attack is at fault.",
    )
    return (*at_multiples, unbounded)


def _always(chosen: Variant) -> bool:
    return True


def _never(chosen: Variant) -> bool:
    return False


_Applies = Callable[[Variant], bool]
_of_least_norm: _Applies = attrgetter("minimum_norm")
_Row = tuple[str, Direction, str, str, str, float | None, str, _Applies, _Applies]
_OF_ATTACKS: tuple[_Row, ...] = (
    # kind, direction, unit, interval, meaning of {}, worst, source, given for, may be missing for
    ("adversarial_accuracy", "maximize", "fraction", WILSON,
     "Plain accuracy on the images that {} made, clean mistakes included.",
     0.0, "", _always, _never),
    ("attack_success_rate", "minimize", "fraction", WILSON,
     "Share of correctly classified images that {} turns wrong.", 1.0, "", _always, _always),
    ("adversarial_nll", "minimize", "nats", MEAN,
     "Mean negative log-likelihood of the true class on the images that {} made.",
     None, "", _always, _never),
    ("lpips", "none", "LPIPS (AlexNet)", MEAN,
     "Mean perceptual distance between images and what {} made of them.",
     None, "Zhang et al., 2018", _always, _always),
    ("ssim", "none", "SSIM", MEAN,
     "Mean structural similarity of images and what {} made of them; 1 is equal.",
     None, "Wang et al., 2004", _always, _never),
    ("l2_distance", "none", "pixel units", MEAN,
     "Mean L2 distance between images and what {} made of them.",
     None, "", _always, _of_least_norm),
    ("linf_distance", "none", "pixel units", MEAN,
     "Mean largest pixel change between images and what {} made of them.",
     None, "", _always, _of_least_norm),
    ("unbounded_success_rate", "minimize", "fraction", WILSON,
     "Share of correctly classified images that {} turns wrong at any distance.",
     1.0, "", _of_least_norm, _always),
    ("median_l2_distance", "maximize", "pixel units", ORDER,
     "Median L2 distance at which {} turns an image wrong.", None, "", _of_least_norm, _always),
    ("queries", "maximize", "queries", MEAN,
     "Mean number of times that {} asked for the scores of an image.",
     None, "", methodcaller("takes", "queries"), _never),
    ("changed_pixels", "none", "pixels", MEAN, "Mean number of pixels that {} changed.",
     None, "", methodcaller("takes", "pixels"), _never),
)  # fmt: skip


def _per_attack(attack: str) -> tuple[Metric, ...]:
    chosen = variant(attack)
    return tuple(
        _metric(
            f"{kind}_{attack}", way, unit, ci, text.format(attack), worst, source, lacks(chosen)
        )
        for kind, way, unit, ci, text, worst, source, given, lacks in _OF_ATTACKS
        if given(chosen)
    )


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (*_FIXED, *_curve(), *(row for name in VARIANTS for row in _per_attack(name)))
}

_AT_EPS = re.compile(r"^(?P<base>.+)_at_(?P<eps>\d+\.\d{4})$")


def at_eps(name: str, eps: float) -> str:
    """Name a metric that was measured at another radius than the data set's standard one."""
    return f"{name}_at_{eps:.4f}"


def metric(name: str) -> Metric:
    """Look a metric up, also one that carries `_at_<eps>`; InputError names the known ones."""
    if name in METRICS:
        return METRICS[name]
    match = _AT_EPS.match(name)
    if match and match["base"] in METRICS:
        base = METRICS[match["base"]]
        return replace(base, name=name, meaning=f"{base.meaning} At eps {match['eps']}.")
    raise InputError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
