"""The audit of a run read back: which candidates are verified, and how the search flattered them.

An audit retrains the chosen candidates with new seeds and attacks them, with everything there
is, on test points that the search never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from results.audit.coverage import EVASION, Coverage, coverage
from results.errors import ResultsError
from results.records.evasion_notes import Sight
from results.records.record import UNDEFENDED_LABEL, Record, first_reason
from results.records.run import Run
from results.records.values import counted
from results.statistics.effects import pooled
from trainables.records.value import Measured

Verdict = Literal["verified", "unverified", "masking suspected"]
VERIFIED: Verdict = "verified"
UNVERIFIED: Verdict = "unverified"
SUSPECTED: Verdict = "masking suspected"
MEMBERSHIP_HEADLINES = frozenset(
    {
        "membership_auc",
        "kept_rows_membership_auc",
        "membership_balanced_accuracy",
        "tpr_at_fpr_0_01",
        "tpr_at_fpr_0_001",
    }
)
"""Metrics that are of the strongest membership attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A candidate after its audit."""

    search: Record | None
    """The search's trial; None where the search had none, as of an undefended model left out."""
    records: tuple[Record, ...]
    """The audit's usable records, a seed each; the first measured everything."""
    planned: int
    """Seeds that the audit was to train."""
    values: Mapping[str, Measured]
    """Metric -> mean over the seeds that measured it, with its two-way interval."""
    seeds: Mapping[str, int]
    """Metric -> seeds that measured it: what only one did has no variance between seeds in it."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Metric -> why no seed has a value."""
    verdict: Verdict
    because: str
    """What the verdict rests on, in words: the sign of masking, or what the audit lacks."""
    uncovered: tuple[str, ...] = ()
    """Attacks that its audit did not measure, whatever the verdict."""
    backdoors: tuple[str, ...] = ()
    """What the first seed found of each backdoor, in words, whatever the verdict; empty where one
    attack alone was measured."""
    why: str
    """Why it was audited: `front`, `touches the front` or `undefended`."""
    label: str

    @property
    def undefended(self) -> bool:
        """Whether nothing defends it."""
        return self.label == UNDEFENDED_LABEL

    @property
    def data(self) -> str:
        """The name of its data set."""
        known = [*self.records, *([self.search] if self.search else [])]
        return str((known[0].spec.get("data") or {}).get("name", "")) if known else ""

    @property
    def name(self) -> str:
        """Its name in a sentence: tables call the undefended model by its label, `none`."""
        return "the undefended model" if self.undefended else self.label

    @property
    def verdict_line(self) -> str:
        """The verdict on one line, with what it rests on where it is not plain."""
        said = "" if self.verdict == VERIFIED else f": {self.because}"
        if self.verdict == VERIFIED and self.uncovered:
            said = f" (not attacked by: {', '.join(self.uncovered)})"
        return f"{self.verdict}: {self.name}{said}"

    @property
    def trial(self) -> str:
        """The trial that stands for it: the search's, or else the audit's first."""
        if self.search is not None:
            return self.search.trial
        return self.records[0].trial if self.records else ""


def audited(run: Run) -> tuple[Audited, ...]:
    """Return the audited candidates in the manifest's order; none where there was no audit.

    ResultsError where the audit's manifest does not say what was audited.
    """
    audit = run.audit
    if audit is None:
        return ()
    plan = audit.manifest.get("audit")
    if not isinstance(plan, dict) or not isinstance(plan.get("candidates"), list):
        raise ResultsError(
            f"{audit.path / 'manifest.json'} lacks audit.candidates, which say what was audited; "
            "run the audit again"
        )
    search = {record.trial: record for record in run.records}
    done = {record.trial: record for record in audit.records}
    return tuple(_candidate(audit, row, search, done) for row in plan["candidates"])


def _candidate(
    audit: Run,
    row: Mapping[str, Any],
    search: Mapping[str, Record],
    done: Mapping[str, Record],
) -> Audited:
    found = [done[trial] for trial in row["trials"] if trial in done]
    records = tuple(record for record in found if record.usable)
    chosen = search.get(row["search_trial"] or "")
    names = sorted({name for record in records for name in record.metrics})
    measuring = {name: _measuring(records, name) for name in names}
    values = {name: pooled(audit, measuring[name], name) for name in names}
    covered = coverage(records, audit.usable)
    verdict, because = _verdict(records, found, len(row["trials"]), covered)
    known = [*([chosen] if chosen else []), *found]
    return Audited(
        search=chosen,
        records=records,
        planned=len(row["trials"]),
        values={name: value for name, value in values.items() if value is not None},
        seeds={
            name: sum(record.value(name) is not None for record in measuring[name])
            for name in names
        },
        missing={
            name: first_reason(records, name) for name, value in values.items() if value is None
        },
        verdict=verdict,
        because=because,
        uncovered=tuple(covered.spared),
        backdoors=tuple(_of_backdoors(records)),
        why=str(row["why"]),
        label=known[0].label if known else UNDEFENDED_LABEL,
    )


def _measuring(records: Sequence[Record], metric: str) -> list[Record]:
    """Return the seeds whose values of a metric mean the same.

    The headlines of membership are those of the strongest attack: where one seed faced more attacks
    than another, only the seeds that faced the most count, or the mean would flatter the defense.
    """
    if metric not in MEMBERSHIP_HEADLINES:
        return list(records)
    faced = [_faced(record) for record in records]
    return [record for record, each in zip(records, faced, strict=True) if each == max(faced)]


def _faced(record: Record) -> tuple[int, int]:
    """Return how many membership attacks a model faced, and with how many shadow models."""
    attacks = sum(name.startswith("membership_auc_") for name in record.measured)
    return attacks, record.privacy.shadows or 0


def _verdict(
    records: Sequence[Record], found: Sequence[Record], planned: int, covered: Coverage
) -> tuple[Verdict, str]:
    """Judge a candidate by its audit: the sign of masking first, then what the audit lacks.

    What it needs follows from the run's threats: each that attacks is to be measured, and evasion
    by an attack that knows the whole defense, with a look for masking on enough points.
    """
    masked = [record.masking for record in records if record.masking and record.evasion.strikes]
    if masked:
        return SUSPECTED, "; ".join(dict.fromkeys(masked))
    if len(records) < planned:
        bad = [_why_unusable(record) for record in found if not record.usable]
        detail = f" ({'; '.join(dict.fromkeys(bad))})" if bad else ""
        return UNVERIFIED, f"only {len(records)} of {planned} seeds of its audit count{detail}"
    if not records:
        return UNVERIFIED, "no seed was audited"
    if not covered.attacked and not covered.proven:
        return UNVERIFIED, f"its audit attacked nothing; {covered.text()}"
    if covered.lacking:
        lacking = covered.why_not(covered.lacking)
        return UNVERIFIED, f"its audit lacks what the run's threats demand: {lacking}"
    words = [counted(len(records), "seed")]
    if EVASION in covered.attacked:
        missed = _missed_by_evasion(records)
        if missed:
            return UNVERIFIED, missed
        words += [_no_sign(records), "attacked adaptively"]
    words += _of_backdoors(records)
    return VERIFIED, "; ".join([*words, covered.text()])


def _of_backdoors(records: Sequence[Record]) -> list[str]:
    """Return which backdoors the first seed met, and whether they know the stack; empty where one
    attack alone was measured.
    """
    notes = next((r.poisoning for r in records if r.poisoning and r.poisoning.attacks), None)
    if notes is None:
        return []
    told = f"backdoors: {'; '.join(attack.text() for attack in notes.attacks)}"
    return [told, *notes.not_adaptive_because]


def _why_unusable(record: Record) -> str:
    if record.status != "completed":
        return f"{record.status}: {record.error}" if record.error else record.status
    stages = ", ".join(record.stale_stages)
    return f"another version measured {stages}; launch again under a new --name"


def _missed_by_evasion(records: Sequence[Record]) -> str:
    """Return what the attack on single images lacks; empty where it lacks nothing."""
    for record in records:
        if record.evasion.adaptive is not True:
            missed = "; ".join(record.evasion.not_adaptive_because) or "the audit does not say why"
            return f"no attack knew the whole defense: {missed}"
    if all(record.evasion.suspected is None for record in records):
        return "its audit looked for no sign of masking"
    sight = _sight(records)
    if sight is not None and not sight.suffices:
        return (
            f"no sign of masking shows, but {sight.text()}, and a verdict needs {sight.enough:g}: "
            f"attack {sight.points_needed:,} points or more"
        )
    return ""


def _no_sign(records: Sequence[Record]) -> str:
    """Write that no sign of masking shows, and how surely one would have."""
    sight = _sight(records)
    return "no sign of masking" + (f" ({sight.text()})" if sight is not None else "")


def _sight(records: Sequence[Record]) -> Sight | None:
    """Return how large a mask the first seed would have seen: it looks for every sign.

    None of records that were written before a check said how sharp it is.
    """
    return next((r.evasion.sight for r in records if r.evasion.sight is not None), None)
