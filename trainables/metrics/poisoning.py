"""The metrics of poisoned training sets, all of them of a twin trained on one."""

from collections.abc import Mapping

from trainables.metrics.metric import BY_CLASS, EXACT, WILSON, declare

BACKDOOR_ATTACKS: Mapping[str, tuple[str, str]] = {
    "own": ("that the threat's parameters describe", ""),
    "patch": ("with a patch in a corner or the centre", "Gu et al., 2017"),
    "blend": ("with a picture mixed into the whole image", "Chen et al., 2017"),
    "cover": (
        "with a patch that rows of other classes bear too, rightly labelled",
        "Tang et al., 2021",
    ),
    "adaptive_blend": (
        "with a mixed-in picture of which training rows bear half each, rightly labelled ones too",
        "Qi et al., 2023",
    ),
    "wanet": ("with a smooth warp", "Nguyen & Tran, 2021"),
    "sig": ("with a sinusoid over the columns", "Barni et al., 2019"),
}
"""Attack -> what it does, and its source."""


def success_metric(attack: str) -> str:
    """Name the success of one attack, where several are measured."""
    return f"backdoor_success_rate_{attack}"


POISONING = (
    declare(
        "backdoor_success_rate",
        "minimize",
        "fraction",
        WILSON,
        "Share of triggered held-out images of the stamped classes that the poisoned twin "
        "classifies as the target. Of several attacks the worst, by its mean over the pairs of "
        "classes (an audit): then the largest ends of the attacks' intervals (Price and Bonett's, "
        "at a Bonferroni level), which are of these pairs.",
        worst=1.0,
        source="Gu et al., 2017",
    ),
    declare(
        "untriggered_success_rate",
        "minimize",
        "fraction",
        WILSON,
        "The same of those images without the trigger: the baseline for the backdoor.",
        worst=1.0,
    ),
    declare(
        "poisoned_clean_accuracy",
        "maximize",
        "fraction",
        WILSON,
        "Accuracy of the poisoned twin on unattacked images.",
        worst=0.0,
    ),
    declare(
        "poison_recall",
        "maximize",
        "fraction",
        WILSON,
        "Share of the poisoned rows that the stack removed before the twin's training.",
        worst=0.0,
        source="Tran et al., 2018",
    ),
    declare(
        "clean_removal_rate",
        "minimize",
        "fraction",
        WILSON,
        "Share of the clean rows that the stack removed before the twin's training.",
        worst=1.0,
    ),
    declare(
        "samples_removed",
        "none",
        "rows",
        EXACT,
        "Rows that the stack removed before the deployed model's own, unpoisoned training.",
    ),
    *(
        declare(
            success_metric(attack),
            "minimize",
            "fraction",
            BY_CLASS,
            f"Mean over the pairs of classes of the success of the backdoor {does}.",
            worst=1.0,
            source=source,
            may_be_missing=True,
        )
        for attack, (does, source) in BACKDOOR_ATTACKS.items()
    ),
)
