"""The plan of an audit: which candidates, which trials, kept in the audit's manifest."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import results
from orchestrator.audit.candidates import UNDEFENDED, Candidate, choose
from orchestrator.audit.specs import AuditSettings, audit_specs, changes, fresh_seeds
from orchestrator.run.manifest import read_manifest, write_manifest
from orchestrator.run.paths import RunPaths
from results.records.record import stack_label
from results.records.values import counted
from search_spaces import Space
from trainables.errors import InputError
from trainables.storage.identity import canonical_json
from trainables.trial.spec import TrialSpec, spec_from_canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How much is audited."""

    candidates: int
    """Maximum trials of the search, from each of its fronts."""
    seeds: int
    points: int | None
    """Most points that are attacked and certified; None: the effort's own."""
    shadows: int | None
    """Reference models of the first seed; None: the threat's own number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A candidate and the trials that audit it."""

    candidate: Candidate
    specs: tuple[TrialSpec, ...]
    """One a seed; the first measures everything."""

    @property
    def label(self) -> str:
        """Its stack in words."""
        return stack_label(self.candidate.spec["stack"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """All that an audit is to run."""

    paths: RunPaths
    """Measured by the audit."""
    planned: tuple[Planned, ...]
    seeds: tuple[int, ...]
    settings: AuditSettings

    @property
    def specs(self) -> list[TrialSpec]:
        """The trials in the order in which they run: the long ones, of the first seed, first."""
        deepest = range(len(self.seeds))
        return [each.specs[number] for number in deepest for each in self.planned]

    @property
    def changed(self) -> tuple[str, ...]:
        """In words what differs from the search other than seeds and effort, and why."""
        found = [
            changes(spec_from_canonical(p.candidate.spec), self.settings) for p in self.planned
        ]
        return tuple(dict.fromkeys(chain.from_iterable(found)))

    def described(self) -> str:
        """Describe in words what is audited."""
        plain = sum(each.candidate.why == UNDEFENDED for each in self.planned)
        defended = len(self.planned) - plain
        return (
            f"{counted(defended, 'candidate')} and {counted(plain, 'undefended model')} on "
            f"{counted(len(self.seeds), 'fresh seed')}"
        )


def plan_audit(paths: RunPaths, space: Space, options: AuditOptions) -> AuditPlan:
    """Choose what to audit in a run; what an audit has planned before stays, with its settings.

    Raises InputError where the space cannot be audited.
    """
    if space.file.pools == "published":
        raise InputError(
            f"{paths.shown}: a reproduction selects nothing and measures on the official test "
            "set; there is nothing to audit"
        )
    earlier = (read_manifest(paths.audit) or {}).get("audit", {})
    settings = AuditSettings(shadows=options.shadows, points=options.points)
    if earlier:
        settings = AuditSettings(**earlier["settings"])
    seeds = fresh_seeds(max(options.seeds, len(earlier.get("seeds", ()))), space.file.seeds)
    chosen = _joined(_candidates(earlier), choose(results.load(paths.root), options.candidates))
    needed = {o.metric for o in space.objectives} | {c.metric for c in space.constraints}
    planned = [
        Planned(
            candidate=candidate,
            specs=audit_specs(spec_from_canonical(candidate.spec), seeds, needed, settings),
        )
        for candidate in chosen
    ]
    return AuditPlan(
        paths=paths.audit, planned=tuple(planned), seeds=tuple(seeds), settings=settings
    )


def write_plan(plan: AuditPlan, space: Space, run: RunPaths, *, command: str) -> None:
    """Write the audit's manifest, by which its records are read."""
    manifest = read_manifest(run) or {}
    rows = [
        {
            "search_trial": each.candidate.search_trial,
            "why": each.candidate.why,
            "spec": each.candidate.spec,
            "trials": [spec.trial for spec in each.specs],
        }
        for each in plan.planned
    ]
    audit = {
        "search_run": run.name,
        "seeds": list(plan.seeds),
        "effort": "audit",
        "settings": asdict(plan.settings),
        "changed": list(plan.changed),
        "candidates": rows,
    }
    write_manifest(
        plan.paths,
        space,
        command=command,
        trials=len(plan.specs),
        data_title=str(manifest.get("data_title", "")),
        further={"audit": audit},
    )


def _candidates(earlier: Mapping[str, Any]) -> list[Candidate]:
    return [
        Candidate(search_trial=row["search_trial"], why=row["why"], spec=row["spec"])
        for row in earlier.get("candidates", ())
    ]


def _joined(earlier: Iterable[Candidate], chosen: Iterable[Candidate]) -> list[Candidate]:
    """Put what is new after what was planned before."""
    found: dict[str, Candidate] = {}
    for candidate in (*earlier, *chosen):
        audited = {name: part for name, part in candidate.spec.items() if name != "seed"}
        found.setdefault(canonical_json(audited), candidate)
    return list(found.values())
