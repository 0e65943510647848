"""The metrics of images that were climbed out of the deployed model."""

from trainables.metrics.metric import CLUSTERED, MEAN, declare

INVERSION = (
    declare(
        "inversion_accuracy",
        "minimize",
        "fraction",
        CLUSTERED,
        "Share of the reconstructions that an evaluator classifies as the intended class: of the "
        "two the one that is right of more held-out images. Reconstructions of one class are "
        "alike, so n is the number of classes.",
        worst=1.0,
        source="Zhang et al., 2020",
    ),
    declare(
        "inversion_accuracy_network",
        "minimize",
        "fraction",
        CLUSTERED,
        "The share by a network of another architecture, trained on images that the target never "
        "saw.",
        worst=1.0,
    ),
    declare(
        "inversion_accuracy_svm",
        "minimize",
        "fraction",
        CLUSTERED,
        "The share by a support vector machine (RBF kernel) on the pixels of those same images.",
        worst=1.0,
    ),
    declare(
        "inversion_feature_distance",
        "maximize",
        "fraction",
        MEAN,
        "How near reconstructions come to training images of their class, in the evaluator "
        "network's features: d / (d + e), d the distance to the nearest of them, e to the nearest "
        "of as many held-out ones; the mean over classes. 0.5: no nearer than to unseen images.",
        worst=0.0,
        source="Zhang et al., 2020",
    ),
    declare(
        "inversion_ssim",
        "minimize",
        "SSIM",
        MEAN,
        "Structural similarity (SSIM) of the reconstructions to the mean training image of their "
        "class; the mean over classes.",
        source="Wang et al., 2004",
    ),
    declare(
        "inversion_ssim_baseline",
        "none",
        "SSIM",
        MEAN,
        "The same of held-out images of the class: the baseline for inversion_ssim.",
    ),
)
