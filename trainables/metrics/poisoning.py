"""The metrics of poisoned training sets, all of them of a twin trained on one."""

from trainables.metrics.metric import EXACT, WILSON, declare

POISONING = (
    declare(
        "backdoor_success_rate",
        "minimize",
        "fraction",
        WILSON,
        "Share of triggered held-out images of the stamped classes that the poisoned twin "
        "classifies as the target.",
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
)
