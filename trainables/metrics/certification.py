"""The metrics of certificates: what is proven of an image, in the L2 norm."""

from trainables.metrics.metric import BOOTSTRAP, MEAN, WILSON, declare

CERTIFICATION = (
    declare(
        "certified_accuracy",
        "maximize",
        "fraction",
        WILSON,
        "Share of all points whose right class is certified in an L2 ball; no certificate counts "
        "as 0.",
        worst=0.0,
        source="Cohen et al., 2019; Lecuyer et al., 2019",
    ),
    declare(
        "certified_precision",
        "maximize",
        "fraction",
        WILSON,
        "Share of the certified points whose certified class is the right one.",
        worst=0.0,
        source="Lecuyer et al., 2019",
        may_be_missing=True,
    ),
    declare(
        "average_certified_radius",
        "maximize",
        "pixel units (L2)",
        MEAN,
        "Mean certified L2 radius over all points, 0 where the class is wrong or nothing is "
        "certified.",
        worst=0.0,
        source="Zhai et al., 2020",
    ),
    declare(
        "abstention_rate",
        "minimize",
        "fraction",
        WILSON,
        "Share of all points for which nothing is certified.",
        worst=1.0,
        source="Cohen et al., 2019",
    ),
    declare(
        "certification_draws",
        "minimize",
        "draws",
        MEAN,
        "Mean noisy draws that the certificate of a point takes, including those stopped early.",
        may_be_missing=True,
    ),
    declare(
        "draws_per_certified_image",
        "minimize",
        "draws",
        BOOTSTRAP,
        "All draws over the number of points that come out certified.",
        may_be_missing=True,
    ),
    declare(
        "certification_seconds",
        "minimize",
        "s",
        MEAN,
        "Time that the certificate of one image takes on this machine.",
        may_be_missing=True,
    ),
)
