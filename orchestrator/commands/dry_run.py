"""What `launch --dry-run` prints: trials, ranges, the audit and the estimated hours."""

from rich.console import Console
from rich.table import Table

from orchestrator.audit.plan import AuditOptions
from orchestrator.commands.estimate import audit_factor, estimated_hours
from orchestrator.run.paths import RunPaths
from orchestrator.sweep.resources import TrialResources
from search_spaces import Space
from trainables.datasets import Dataset
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.evasion.masking import MARGIN
from trainables.threats.evasion.signs.power import ENOUGH, MASK, points_needed, power


def print_plan(
    space: Space,
    paths: RunPaths,
    trials: int,
    resources: TrialResources,
    dataset: Dataset,
    audited: AuditOptions | None,
    console: Console,
) -> None:
    """Print what a launch would run, and how long it may take; `audited` is None without audit."""
    console.print(f"Space {space.name}: {space.file.description}")
    table = Table("slot", "defense", "parameter", "searched", box=None)
    for slot, names in space.slots.items():
        for name in names:
            if not space.domains[name]:
                table.add_row(slot, name, "", "")
            for parameter, domain in space.domains[name].items():
                table.add_row(slot, name, parameter, domain.describe())
    console.print(table)
    for scenario in space.scenarios:
        trained = ", ".join(f"{k} {d.describe()}" for k, d in scenario.training.items())
        console.print(f"{scenario.dataset} / {scenario.model.name}: {trained or 'defaults'}")
    hours = estimated_hours(space, dataset, trials, resources)
    console.print(
        f"{trials} trials, {resources.concurrent} at once, {resources.described}: "
        f"about {hours:.2g} hours on this machine "
        "(from a few timed steps; rough)",
        soft_wrap=True,
    )
    console.print(_planned_audit(space, audited, hours / trials), soft_wrap=True)
    console.print(f"Nothing was started; the run would be {paths.shown}", soft_wrap=True)


def _planned_audit(space: Space, options: AuditOptions | None, trial_hours: float) -> str:
    """Return what the audit adds."""
    if space.file.pools == "published":
        return "No audit: a reproduction selects nothing"
    if options is None:
        return "No audit (--no-audit); `audit RUN` runs it later"
    fronts = len({scenario.dataset for scenario in space.scenarios})
    hours = audit_factor(options, fronts) * trial_hours
    each = " for each data set" if fronts > 1 else ""
    return (
        f"Then the audit: up to {options.candidates} of the best and the undefended model{each}, "
        f"{options.seeds} fresh seeds each: about {hours:.2g} hours more"
        f"{_too_few(space, options.points)}"
    )


def _too_few(space: Space, points: int | None) -> str:
    """Return that an audit's points let it verify nothing; empty where they are enough."""
    needed = points_needed(MARGIN)
    attacked = Evasion.name in space.file.threats
    if points is None or points >= needed or not attacked:
        return ""
    return (
        f". It verifies nothing: a mask of {MASK:.0%} of {points} points would be seen with "
        f"probability {power(points, MARGIN):.2f}, and a verdict needs {ENOUGH:g}; set audit: "
        f"points to {needed} or more"
    )
