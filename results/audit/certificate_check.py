"""Certificates held against attacks: what is proven cannot be refuted, so one of them has a bug."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import bdtrc, betaincinv, ndtri

from results.errors import ResultsError
from results.records.record import Record
from results.records.run import Run
from results.records.values import number_text, value_text
from results.sections.certificates import CERTIFIED, share
from trainables.records.value import Measured

_EMPIRICAL = "robust_accuracy_l2"
_CERTIFIED_AT = re.compile(rf"^{CERTIFIED}_at_(\d+(?:\.\d+)?)$")
_EMPIRICAL_AT = re.compile(rf"^{_EMPIRICAL}_at_(\d+\.\d{{4}})$")
_HALF_DIGIT = 5e-5
"""A radius in a metric's name has four decimals."""
_ANSWERS = 10
"""Maximum times that an image near a point is put to the deployed model, besides its certificate,
by each attack. Each answer of a vote is wrong with at most the certificate's failure probability.
"""
_BY_CHANCE = 1e-6
"""Probability, at most, at which an honest trial is stopped at one radius."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A certified accuracy above the empirical one at the same L2 radius."""

    record: Record
    radius: float
    certified: Measured
    empirical: Measured

    @property
    def same_points(self) -> bool:
        """Whether both are of the same points: those of a trial are the same if as many."""
        return self.certified.n == self.empirical.n

    def text(self) -> str:
        """Write it in one line: what, where, and how to mend it."""
        where = f"the same {self.certified.n:,} points" if self.same_points else "other points"
        return (
            f"trial {self.record.trial} ({self.record.label}, {self.record.spec.get('effort')}): "
            f"certified accuracy {value_text(self.certified)} at L2 radius "
            f"{number_text(self.radius)} lies above the accuracy {value_text(self.empirical)} "
            f"under L2 attack at that radius, on {where}; what is proven no attack can refute, so "
            "the certificate or what scores the attack has a bug: mend it and run the trial again, "
            "or remove its record"
        )


def check_certificates(run: Run) -> None:
    """Raise ResultsError, naming the trial, where a certificate of the run or its audit is refuted.

    An attack inside a point's own radius may not make another class the likelier one, except on as
    many points as certificates may fail. A certified accuracy at L2 radius r must not lie above the
    accuracy under L2 attack at r: on the same points by no more than certificates may fail, on
    other points not beyond both intervals.
    """
    for part in (run, run.audit):
        for record in part.usable if part else ():
            found = next(violations(record), None)
            text = found.text() if found is not None else refuted_points(record)
            if text:
                raise ResultsError(text)


def refuted_points(record: Record) -> str:
    """Write which certificates attacks inside their own radii refuted; empty where no more did
    than may fail.
    """
    attacked = record.certification.attacked if record.certification else None
    if attacked is None or not any(attacked.refuted):
        return ""
    count, refuted = len(attacked.refuted), sum(attacked.refuted)
    # Each image's certificate fails with this probability, independently of the others.
    if float(bdtrc(refuted - 1, count, min(1.0, _failure(record)))) > _BY_CHANCE:
        return ""
    return (
        f"trial {record.trial} ({record.label}, {record.spec.get('effort')}): {refuted} of {count} "
        f"certified points have another likeliest class within {attacked.inside:g} of their own "
        f"certified radius, although each certificate fails with probability {_failure(record):g} "
        "at most, so it has a bug: mend it and run the trial again, or remove its record"
    )


def violations(record: Record) -> Iterator[Violation]:
    """Return the radii at which what a trial certifies is refuted by its own attacks."""
    for radius, empirical in _empirical(record):
        # Nearer to the edge of its ball the deployed vote may abstain, which counts as wrong.
        reached = radius + answer_margin(record.stack)
        for certified in _certified(record, reached):
            found = Violation(
                record=record, radius=radius, certified=certified, empirical=empirical
            )
            if _refuted(found, _failure(record)):
                yield found


def answer_margin(stack: Sequence[Mapping[str, Any]]) -> float:
    """Return how far inside a certified ball the deployed answer is sure to be given, in L2.

    Randomized smoothing answers by a vote of fewer draws than certify, and abstains where it is
    close. At distance R - m from a point certified at R the right class has a probability of
    Phi(m / sigma) at least (Cohen et al., 2019, theorem 1); m is where a vote of that probability
    abstains with probability alpha at most. 0 of any other stack.
    """
    for defense in stack:
        if defense["name"] == "randomized_smoothing":
            draws, alpha = int(defense["draws"]), float(defense["alpha"])
            # Fewest votes that a two-sided test against a fair coin at level alpha accepts.
            wins = next(
                (k for k in range(1, draws + 1) if 2 * bdtrc(k - 1, draws, 0.5) <= alpha), None
            )
            if wins is None:
                return float("inf")
            # The probability at which so few votes have probability alpha: Clopper and Pearson.
            sure = float(betaincinv(wins, draws - wins + 1, 1 - alpha))
            return float(defense["sigma"]) * float(ndtri(sure))
    return 0.0


def _empirical(record: Record) -> Iterator[tuple[float, Measured]]:
    standard = record.value(_EMPIRICAL)
    if standard is not None and record.evasion.radius_l2 is not None:
        yield record.evasion.radius_l2, standard
    for name, value in record.measured.items():
        match = _EMPIRICAL_AT.match(name)
        if match:
            yield float(match[1]), value


def _certified(record: Record, radius: float) -> Iterator[Measured]:
    """Return the certified accuracy at a radius, from the points' own radii and from the
    metrics.
    """
    notes = record.certification
    if notes is not None and notes.failure_probability is not None:
        pairs = zip(notes.radii, notes.right, strict=True)
        reaching = sum(right and reached >= radius + _HALF_DIGIT for reached, right in pairs)
        yield share(reaching, len(notes.radii))
    for name, value in record.measured.items():
        match = _CERTIFIED_AT.match(name)
        # What is certified at a larger radius is so at this one too.
        if match and float(match[1]) >= radius - _HALF_DIGIT:
            yield value


def _failure(record: Record) -> float:
    notes = record.certification
    return (notes.failure_probability or 0.0) if notes is not None else 0.0


def _refuted(found: Violation, failure: float) -> bool:
    certified, empirical = found.certified, found.empirical
    if not found.same_points:
        return certified.low > empirical.high
    count = round(certified.value * certified.n)
    refuted = count - round(empirical.value * empirical.n)
    if refuted < 1:
        return False
    chance = float(bdtrc(refuted - 1, count, min(1.0, (1 + _ANSWERS) * failure)))
    return chance <= _BY_CHANCE
