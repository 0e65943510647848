"""The metrics of attacks: robust accuracy over the radius, and a table of rows for each attack."""

from collections.abc import Callable
from operator import attrgetter, methodcaller

from trainables.attacks import VARIANTS, Variant, variant
from trainables.metrics.metric import MEAN, ORDER, WILSON, Direction, Metric, declare

CURVE_MULTIPLES = (0.5, 1.5, 2.0, 4.0)
"""Multiples of the standard radius at which robust accuracy is also measured."""
UNBOUNDED = "robust_accuracy_unbounded"


def curve_metric(multiple: float) -> str:
    """Name the robust accuracy at a multiple of the standard radius."""
    return f"robust_accuracy_at_radius_{multiple:g}".replace(".", "_")


def _curve_rows() -> tuple[Metric, ...]:
    at_multiples = (
        declare(
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
    unbounded = declare(
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


def _counts_pixels(chosen: Variant) -> bool:
    return chosen.norm == "l0"


_Row = tuple[str, Direction, str, str, str, float | None, str, _Applies, _Applies]
_TABLE: tuple[_Row, ...] = (
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
     None, "", _counts_pixels, _never),
)  # fmt: skip


def _rows_of(attack: str) -> tuple[Metric, ...]:
    chosen = variant(attack)
    return tuple(
        declare(
            f"{kind}_{attack}", way, unit, ci, text.format(attack), worst, source, lacks(chosen)
        )
        for kind, way, unit, ci, text, worst, source, given, lacks in _TABLE
        if given(chosen)
    )


OF_ATTACKS = (*_curve_rows(), *(row for name in VARIANTS for row in _rows_of(name)))
