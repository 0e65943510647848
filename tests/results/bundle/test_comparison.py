import pytest

from results.bundle import BundleError
from results.bundle.comparison import compare, falls_short
from trainables.metrics import intervals
from trainables.records.value import Measured


def _value(successes: int, n: int) -> Measured:
    found = intervals.proportion(successes, n)
    return Measured(found.value, found.low, found.high, found.n)


def _verdict(metric: str, card: Measured, now: Measured, *, more_is_worse: bool = False) -> str:
    plain = {"value": card.value, "low": card.low, "high": card.high, "n": card.n}
    rows = compare(
        {"measured": {"metrics": {metric: plain}}}, {metric: now}, {metric: more_is_worse}
    )
    assert falls_short(rows) == (rows[0].verdict == "falls short")
    return rows[0].verdict


@pytest.mark.parametrize(
    ("card", "now", "verdict"),
    [(216, 216, "holds"), (216, 260, "holds"), (216, 205, "holds"), (216, 150, "falls short")],
)
def test_a_figure_falls_short_where_the_difference_lies_below_zero(
    card: int, now: int, verdict: str
) -> None:
    assert _verdict("robust_accuracy", _value(card, 270), _value(now, 270)) == verdict


def test_intervals_that_overlap_do_not_save_a_figure_whose_difference_is_sure() -> None:
    card, now = _value(216, 270), _value(195, 270)
    assert card.low < now.high, "the two intervals overlap"
    assert _verdict("clean_accuracy", card, now) == "falls short"


def test_of_a_metric_where_less_is_better_more_falls_short() -> None:
    low, high = _value(10, 270), _value(90, 270)
    assert _verdict("undetected_success_rate", low, high, more_is_worse=True) == "falls short"
    assert _verdict("undetected_success_rate", high, low, more_is_worse=True) == "holds"


def test_what_the_card_does_not_say_is_shown_and_judged_by_nobody() -> None:
    rows = compare(
        {"measured": {"metrics": {}}},
        {"clean_rejection_rate": _value(1, 9), "latency_ms_p50": _value(1, 9)},
        {"clean_rejection_rate": True, "latency_ms_p50": True},
    )
    told = [(row.metric, row.verdict) for row in rows]
    assert told == [("clean_rejection_rate", "not on the card")]
    assert rows[0].plain()["card"] is None and not falls_short(rows)


@pytest.mark.parametrize("metric", ["clean_accuracy", "robust_accuracy"])
def test_a_card_from_which_the_accuracies_were_cut_holds_nothing(metric: str) -> None:
    rows = compare({"measured": {"metrics": {}}}, {metric: _value(9, 9)}, {metric: False})
    assert rows[0].verdict == "not on the card" and falls_short(rows)


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"measured": []},
        {"measured": {"metrics": {"clean_accuracy": 1}}},
        {"measured": {"metrics": {"clean_accuracy": {"value": "high"}}}},
    ],
)
def test_a_card_of_another_form_is_refused(card: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="card is of another format"):
        compare(card, {}, {})
