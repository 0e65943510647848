"""The metrics of membership inference: headlines over all attacks, and each attack's area.

Members are the rows that were given to the stack, before its filters.
"""

from collections.abc import Mapping

from trainables.metrics.metric import AREA, BONFERRONI, FARTHEST, declare

MEMBERSHIP_ATTACKS: Mapping[str, tuple[str, str]] = {
    "loss_threshold": ("calls a row a member if its loss is low", "Yeom et al., 2018"),
    "entropy": ("calls a row a member if the answer's entropy is low", "Song & Mittal, 2021"),
    "modified_entropy": (
        "calls a row a member if an entropy that knows the true class is low",
        "Song & Mittal, 2021",
    ),
    "label_only": (
        "sees labels alone and calls a row a member if noise does not change its label",
        "Choquette-Choo et al., 2021",
    ),
    "shadow": (
        "learns to recognise members by sorted probabilities from shadow models, per class",
        "Shokri et al., 2017",
    ),
    "lira_online": (
        "compares the answer with those of shadow models that saw the row and that did not",
        "Carlini et al., 2022",
    ),
    "lira_offline": (
        "compares the answer with those of shadow models that did not see the row",
        "Carlini et al., 2022",
    ),
    "rmia": (
        "compares the answer with those of few shadow models and of other rows",
        "Zarifzadeh et al., 2024",
    ),
}
"""Attack -> what it does, and its source."""

KEPT_ROWS = "kept_rows_membership_auc"
"""The headline of the rows alone that the filters of a stack kept."""


def auc_metric(attack: str) -> str:
    """Name the area under the ROC of an attack."""
    return f"membership_auc_{attack}"


MEMBERSHIP = (
    declare(
        "membership_auc",
        "minimize",
        "fraction",
        FARTHEST,
        "Area under the ROC of the strongest attack that distinguishes the rows given to the "
        "stack, before its filters, from unseen ones; 0.5 means no leak. An attack whose area is "
        "below 0.5 is turned round: which is strongest, and which way, is chosen on half of the "
        "rows for the figure of the other half.",
        worst=1.0,
        source="Yeom et al., 2018; Carlini et al., 2022",
    ),
    declare(
        KEPT_ROWS,
        "minimize",
        "fraction",
        FARTHEST,
        "Area under the ROC of the strongest membership attack on the rows that the filters of the "
        "stack kept, against unseen rows that the same filters keep; only where they dropped any.",
        worst=1.0,
        may_be_missing=True,
    ),
    declare(
        "membership_balanced_accuracy",
        "minimize",
        "fraction",
        BONFERRONI,
        "Mean of true positive and true negative rate of the strongest membership attack at a "
        "threshold that it sets without knowing who is a member.",
        worst=1.0,
        source="Yeom et al., 2018",
    ),
    *(
        declare(
            name,
            "minimize",
            "fraction",
            BONFERRONI,
            f"Share of members that the strongest attack finds where {share} of the non-members "
            "are accused.",
            worst=1.0,
            source="Carlini et al., 2022",
            may_be_missing=True,
        )
        for name, share in (("tpr_at_fpr_0_01", "1 %"), ("tpr_at_fpr_0_001", "0.1 %"))
    ),
    *(
        declare(
            auc_metric(attack),
            "minimize",
            "fraction",
            AREA,
            f"Area under the ROC of the membership attack that {does}; below 0.5 it leaks as much "
            "the other way round.",
            worst=1.0,
            source=source,
        )
        for attack, (does, source) in MEMBERSHIP_ATTACKS.items()
    ),
)
