"""What a run found, in words that carry their numbers and intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.records.record import Objective, Record
from results.records.run import Run
from results.records.values import counted, interval_text, number_text, signed_text, value_text
from results.sections.status import Counts, best_record, counts
from results.statistics.effects import Change, change, undefended
from results.statistics.fronts import Front, membership
from results.statistics.intervals import UNTOLD, verdict_text
from trainables.records.value import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The trial with the best value of one objective, and what it costs in the others."""

    objective: Objective
    record: Record
    value: Measured
    change: Change | None
    """To the undefended trial; None where there is none or the best is undefended itself."""
    costs: tuple[Change, ...]
    """The other objectives compared with the undefended trial."""
    others: tuple[tuple[str, Measured], ...]
    """(metric, value) of the other objectives of this trial."""


def best_points(run: Run) -> tuple[Best, ...]:
    """Return the best eligible trial of each objective, robustness first and clean accuracy last.

    The earliest where several tie.
    """
    order = {"robust_accuracy": 0, "clean_accuracy": 2}
    found = []
    for objective in sorted(run.objectives, key=lambda each: order.get(each.metric, 1)):
        best = best_record(run, objective)
        if best is not None:
            found.append(_best(run, objective, *best))
    return tuple(found)


def findings(
    run: Run, found: Sequence[Front], shares: Mapping[str, Mapping[str, float]] | None = None
) -> list[str]:
    """Write what was found, the headline first, one sentence or two an entry.

    `shares` holds each front's `membership` by its key, where the caller has it already.
    """
    tally = counts(run)
    points = best_points(run)
    words = [_best_sentence(best) for best in points]
    if not words:
        words = ["No trial has completed yet, so nothing can be said about any defense."]
        if tally.struck_off:
            words = ["Every completed trial is struck off, so none is the best at anything."]
    words += struck_off_sentences(run)
    words += [sentence for best in points if (sentence := _cost_sentence(best))]
    words += [
        _front_sentence(front, membership(front) if shares is None else shares[front.key])
        for front in found
        if front.overall
    ]
    words.append(counts_sentence(tally))
    return words


def struck_off_sentences(run: Run) -> list[str]:
    """Write how many trials are on no front although they completed, and why; or nothing."""
    struck = run.struck_off
    if not struck:
        return []
    masked = sum(bool(record.masking) for record in struck)
    blind = sum(record.evasion.adaptive is False for record in struck)
    kinds = [
        (masked, "the masking check failed"),
        (blind, "no attack knew the whole defense"),
    ]
    why = " and ".join(f"for {count:,} {reason}" for count, reason in kinds if count)
    return [
        f"{counted(len(struck), 'trial')} {'is' if len(struck) == 1 else 'are'} struck off: on no "
        f"front and best at nothing, because {'its' if len(struck) == 1 else 'their'} robust "
        f'accuracy cannot be trusted ({why}). The reason for each is under "Struck off the fronts".'
    ]


def counts_sentence(tally: Counts) -> str:
    """Write how many trials completed, and what is left out of every front and why."""
    count = tally.done - tally.struck_off
    words = f"{count:,} of {counted(tally.asked, 'trial')} asked for completed and count."
    left = [
        (tally.struck_off, "struck off"),
        (tally.failed, "failed"),
        (tally.stopped, "stopped before the end"),
        (tally.stale, "stale (a stage has changed since)"),
        (tally.corrupt, "with a record that cannot be read"),
    ]
    parts = [f"{number:,} {reason}" for number, reason in left if number]
    return f"{words} Left out: {', '.join(parts)}." if parts else f"{words} None is left out."


def warning(run: Run) -> str:
    """Write what these figures must not be mistaken for."""
    efforts = Counter(str(record.spec.get("effort", "")) for record in run.usable)
    published = any(
        (record.spec.get("data") or {}).get("pools") == "published" for record in run.usable
    )
    held_out = "the official test images" if published else "validation data"
    if run.audit is not None and run.audit.usable:
        return (
            f"The figures of the search come from cheap attacks on {held_out}, and the best of "
            'many trials looks better than it is. Decide by the audited figures: under "The '
            'audit" both stand side by side.'
        )
    if not efforts or "screen" in efforts:
        return (
            f"These are screen figures: cheap attacks on {held_out}, unaudited. The best of many "
            "trials looks better than it is. Every recommendation is unverified until an audit."
        )
    return (
        f"These figures were measured at {' and '.join(sorted(efforts))} effort on {held_out}, but "
        "no audit of chosen winners is part of this report. Every recommendation is unverified "
        "until an audit."
    )


def measured_on(run: Run) -> str:
    """Write the radius of the standard ball and the number of points behind the objectives."""
    radius = standard_radius(run)
    ball = "the data set's standard radius" if radius is None else f"eps {radius:.4g}"
    points = {
        (objective.metric, value.n)
        for objective in run.objectives
        for record in run.usable
        if (value := record.value(objective.metric)) is not None
    }
    parts = []
    for objective in run.objectives:
        sizes = sorted(n for metric, n in points if metric == objective.metric)
        if sizes:
            span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
            parts.append(f"{objective.metric} n = {span}")
    tail = f" Points: {', '.join(parts)}." if parts else ""
    return f"Attacks keep within an Linf ball of {ball}.{tail}"


def standard_radius(run: Run) -> float | None:
    """Return the data set's standard radius; None where the run has several data sets."""
    radius = run.manifest.get("radius")
    sets = {(record.spec.get("data") or {}).get("name") for record in run.records}
    return float(radius) if radius is not None and len(sets) < 2 else None


def _best(run: Run, objective: Objective, record: Record, value: Measured) -> Best:
    plain = undefended(run, record) if record.stack else ()
    rest = [other for other in run.objectives if other.metric != objective.metric]
    costs = [change(run, other, [record], plain) for other in rest]
    return Best(
        objective=objective,
        record=record,
        value=value,
        change=change(run, objective, [record], plain),
        costs=tuple(cost for cost in costs if cost is not None),
        others=tuple(
            (other.metric, single)
            for other in rest
            if (single := record.value(other.metric)) is not None
        ),
    )


def _best_sentence(best: Best) -> str:
    extreme = "highest" if best.objective.maximized else "lowest"
    words = (
        f"The {extreme} {best.objective.metric} is {value_text(best.value)} on {best.value.n:,} "
        f"points, by {best.record.label} (trial {best.record.trial[:10]}){_catch(best)}."
    )
    if not best.record.stack:
        return f"{words} No defense improved on the undefended model here."
    if best.change is None:
        return f"{words} There is no undefended trial of the same scenario to compare with."
    conclusion = {
        "better": "so the difference is significant: the defense is better",
        "worse": "so the difference is significant: the defense is worse",
        UNTOLD: "so the difference is not significant on these points",
    }[best.change.verdict]
    return (
        f"{words} Undefended: {value_text(best.change.undefended)}; the difference is "
        f"{signed_text(best.change.difference.value)} {interval_text(best.change.difference)}, "
        f"{conclusion}."
    )


def _catch(best: Best) -> str:
    """Write what a best is worse in, and that it may be no gain, to end the sentence naming it."""
    losses = " and ".join(
        f"{cost.metric} ({signed_text(cost.difference.value)} {interval_text(cost.difference)})"
        for cost in best.costs
        if cost.verdict == "worse"
    )
    if best.change is None or not losses:
        return ""
    if best.change.verdict == "better":
        return f", which is worse than undefended in {losses}"
    relation = {"worse": "is not better than", UNTOLD: "is not significantly different from"}
    return f", which {relation[best.change.verdict]} undefended here and is worse in {losses}"


def _cost_sentence(best: Best) -> str:
    if not best.costs:
        return ""
    parts = [
        f"{cost.metric} {signed_text(cost.difference.value)} {interval_text(cost.difference)} "
        f"({verdict_text(cost.verdict)})"
        for cost in best.costs
    ]
    return (
        f"Elsewhere the best {best.objective.metric} moves, against undefended: {'; '.join(parts)}."
    )


def _front_sentence(front: Front, shares: Mapping[str, float]) -> str:
    members, compared = len(front.members), len(front.records)
    if not compared:
        return "There is no front: no trial has every objective."
    sure = sum(shares[member.trial] >= 0.95 for member in front.members)
    volume = ""
    if front.hypervolume is not None and front.reference is not None:
        point = ", ".join(
            f"{objective.metric} {worst:g}"
            for objective, worst in zip(front.objectives, front.reference, strict=True)
        )
        volume = (
            f" The hypervolume is {number_text(front.hypervolume)}, up to the worst possible "
            f"values ({point})."
        )
    return (
        f"{counted(members, 'trial')} of {compared:,} compared {'is' if members == 1 else 'are'} "
        f"on the front over {front.title}; {sure} of them in at least 95 % of draws from the "
        f"intervals.{volume}"
    )
