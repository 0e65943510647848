"""What one answer of a model says of membership: scores in float64, larger = member.

Axes: N points, K classes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
TINY = 1e-45
"""Added to a probability before its logarithm, as the code of Carlini et al., 2022, does: a
saturated softmax stays finite (log 1e-45 = -103.6)."""


def softmax(log_probabilities: Floats) -> Floats:
    """Return probabilities (.., K) of log-probabilities or scores, the largest taken off first.

    Raises ValueError where one is NaN, or where a row has no class with a probability.
    """
    scores = np.asarray(log_probabilities, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("NaN among the log-probabilities; they say nothing of membership")
    largest = scores.max(axis=-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise ValueError("a row of log-probabilities has no class with a probability")
    exponentials = np.exp(scores - largest)
    found: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return found


def of_true_class(rows: Floats, labels: Integers) -> Floats:
    """Return the value of each point's own class (.., N) out of rows (.., N, K)."""
    found: Floats = np.take_along_axis(rows, _column(rows, labels), axis=-1)[..., 0]
    return found


def loss_threshold(log_probabilities: Floats, labels: Integers) -> Floats:
    """Return minus the cross-entropy (N,) of log-probabilities (N, K): members have a low loss.

    Source: Yeom et al., 2018.
    """
    found: Floats = np.log(of_true_class(softmax(log_probabilities), labels) + TINY)
    return found


def entropy(log_probabilities: Floats, labels: Integers) -> Floats:
    """Return minus the entropy (N,) of log-probabilities (N, K); the true class is not looked at.

    Source: Shokri et al., 2017; as a score: Song and Mittal, 2021.
    """
    del labels
    found = softmax(log_probabilities)
    score: Floats = (found * np.log(found + TINY)).sum(axis=-1)
    return score


def modified_entropy(log_probabilities: Floats, labels: Integers) -> Floats:
    """Return minus the entropy that knows the true class (N,), of log-probabilities (N, K).

    It is 0 where all is on the true class and large where all is on another one.
    Source: Song and Mittal, 2021 (Mentr).
    """
    found = softmax(log_probabilities)
    rest = complement(found)
    own, own_rest = of_true_class(found, labels), of_true_class(rest, labels)
    wrong = found * np.log(rest + TINY)
    np.put_along_axis(wrong, _column(wrong, labels), 0.0, axis=-1)
    score: Floats = own_rest * np.log(own + TINY) + wrong.sum(axis=-1)
    return score


def complement(found: Floats) -> Floats:
    """Return 1 - p (.., K), of the largest p as the sum of the others: 1 - p would round to 0."""
    rest = 1 - found
    largest = found.argmax(axis=-1)[..., None]
    others = found.copy()
    np.put_along_axis(others, largest, 0.0, axis=-1)
    np.put_along_axis(rest, largest, others.sum(axis=-1, keepdims=True), axis=-1)
    return rest


def label_kept(right: NDArray[np.bool_], kept: Floats, copies: int) -> Floats:
    """Return the share of answers (N,), the clean one included, that name the true class.

    `right` (N,) is whether the clean image is labelled right; a point that is not has distance 0
    to the decision, whatever its noisy copies are classified as. `kept` (N,) is the share of its
    `copies` noisy copies that are. Source: Choquette-Choo et al., 2021.
    """
    score: Floats = np.where(right, (1 + copies * kept) / (1 + copies), 0.0)
    return score


def _column(rows: Floats, labels: Integers) -> Integers:
    """Return the labels (N,) as an index of the last axis of rows (.., N, K)."""
    column: Integers = np.broadcast_to(labels[:, None], (*rows.shape[:-1], 1))
    return column
