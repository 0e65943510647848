"""A classifier of membership per class, learnt from the answers of shadow models.

Source: Shokri et al., Membership inference attacks against machine learning models, 2017. Axes:
S shadow models, N points, K classes, F features.
"""

import numpy as np

from trainables.threats.membership.lira import Inside
from trainables.threats.membership.scores import Floats, Integers, of_true_class, softmax

_SMALLEST = 1e-12
"""Probabilities are cut here: below, one answer of 1e-40 would outweigh all others."""


def shadow_classifier(
    answers_NK: Floats, shadows_SNK: Floats, inside_SN: Inside, labels: Integers
) -> Floats:
    """Return the log-odds of membership (N,), by the classifier of each point's own class.

    It is a logistic regression on the logarithms of the sorted probabilities. Sorting forgets
    which of them is the true class', so that one is kept too. The shadows' own members and
    non-members are learnt from; the attacked model's are not known to it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    own = _features(answers_NK, labels)
    shadows = _features(shadows_SNK, labels)
    scores = np.empty(len(labels))
    for label in np.unique(labels):
        rows = labels == label
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        learnt_from = shadows[:, rows].reshape(-1, shadows.shape[-1])
        classifier.fit(learnt_from, inside_SN[:, rows].reshape(-1))
        scores[rows] = classifier.decision_function(own[rows])
    return scores


def _features(log_probabilities: Floats, labels: Integers) -> Floats:
    """Return the log of sorted and of true-class probabilities (.., N, F), F = K + 1."""
    found = np.maximum(softmax(log_probabilities), _SMALLEST)
    own = of_true_class(found, labels)
    together: Floats = np.log(np.concatenate([-np.sort(-found, axis=-1), own[..., None]], axis=-1))
    return together
