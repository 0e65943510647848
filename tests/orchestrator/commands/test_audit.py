"""Audits on a real local Ray, through the command line."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import results
from orchestrator.audit.plan import AuditOptions, plan_audit, write_plan
from orchestrator.commands.audit import AuditTrials
from orchestrator.run.manifest import read_manifest
from orchestrator.run.paths import RunPaths, existing_run
from orchestrator.search.gpu_hours import GpuHours
from orchestrator.search.proposals import Ended, Proposal
from results.audit.audit import SUSPECTED, audited
from results.records.record import Record
from search_spaces import load_space, stored_space
from tests.orchestrator import planted
from tests.orchestrator.command_line import end, run, start, wait_for
from tests.orchestrator.processes import descendants, kill_all
from tests.search_spaces.writing import write_space
from trainables.errors import InputError
from trainables.records.record import TrialRecord

pytestmark = pytest.mark.slow

OPTIONS = AuditOptions(candidates=2, seeds=2, points=None, shadows=2)
PLAIN: dict[str, Any] = {
    "threats": {"membership": None},
    "objectives": ["clean_accuracy", "membership_auc"],
    "audit": {"candidates": 2, "seeds": 2},
    "search": {"algorithm": "random", "trials": 3},
}


def records_of(folder: Path) -> dict[str, TrialRecord]:
    paths = (folder / "records").glob("*.json")
    return {path.stem: TrialRecord.from_json(path.read_text()) for path in paths}


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}


def candidates_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text())["audit"][
        "candidates"
    ]
    return found


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished search of three trials without an audit: (space file, runs folder)."""
    folder = tmp_path_factory.mktemp("searched")
    path = write_space(folder, **PLAIN)
    done = run("launch", "--no-audit", "--space", str(path), "--runs", str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    assert not (folder / "runs" / "tiny" / "audit").exists()
    return path, folder / "runs"


def planned_run(folder: Path) -> tuple[RunPaths, list[Any]]:
    """A run of one undefended and one defended record, and its plan's trials."""
    paths = existing_run(str(folder))
    space = stored_space(read_manifest(paths) or {})
    plan = plan_audit(paths, space, OPTIONS)
    return paths, plan.specs


def test_trials_are_proposed_once_long_ones_first_and_recorded_ones_never(
    searched: tuple[Path, Path],
) -> None:
    _, runs = searched
    _, specs = planned_run(runs / "tiny")
    seeds = [spec.seed for spec in specs]
    assert seeds == sorted(seeds)
    trials = AuditTrials((), specs, {})
    first = trials.next()
    assert isinstance(first, Proposal) and first.spec == specs[0]
    assert trials.space.spec(first.flat) == first.spec
    rest = []
    while isinstance(proposal := trials.next(), Proposal):
        rest.append(proposal.spec)
    assert rest == specs[1:] and trials.running == len(specs)
    assert isinstance(trials.ended, Ended) and not trials.ended.spent
    trials.close()
    assert (trials.running, trials.missing) == (0, len(specs))


def test_a_spent_budget_begins_no_trial_and_says_so(searched: tuple[Path, Path]) -> None:
    _, runs = searched
    _, specs = planned_run(runs / "tiny")
    for trials in (
        AuditTrials((), specs, {}, deadline=0.0),
        AuditTrials((), specs, {}, gpu_hours=GpuHours(0.0, [])),
    ):
        found = trials.next()
        assert isinstance(found, Ended) and found.spent and trials.missing == len(specs)


def test_a_plan_keeps_its_settings_and_adds_seeds(searched: tuple[Path, Path]) -> None:
    _, runs = searched
    paths = existing_run(str(runs / "tiny"))
    space = stored_space(read_manifest(paths) or {})
    plan = plan_audit(paths, space, OPTIONS)
    write_plan(plan, space, paths, command="python -m orchestrator audit tiny")
    more = AuditOptions(candidates=2, seeds=5, points=7, shadows=4)
    again = plan_audit(paths, space, more)
    assert again.settings == plan.settings
    assert len(again.seeds) == 5 and again.seeds[: len(plan.seeds)] == plan.seeds
    assert [each.candidate for each in again.planned] == [each.candidate for each in plan.planned]


def test_the_space_of_a_manifest_is_the_space_that_was_launched(
    searched: tuple[Path, Path],
) -> None:
    path, runs = searched
    space = load_space(str(path))
    stored = stored_space(read_manifest(existing_run(str(runs / "tiny"))) or {})
    assert stored.canonical() == space.canonical()
    assert (stored.objectives, stored.file.audit) == (space.objectives, space.file.audit)
    assert stored.file.resources == space.file.resources


def test_a_reproduction_is_not_audited(tmp_path: Path) -> None:
    space = load_space("A0_baseline")
    with pytest.raises(InputError, match="a reproduction selects nothing"):
        plan_audit(RunPaths(tmp_path), space, OPTIONS)


def test_an_audit_that_was_killed_is_completed_and_a_longer_sweep_adds_to_it(
    searched: tuple[Path, Path],
) -> None:
    path, runs = searched
    folder = runs / "tiny" / "audit"
    driver = start("audit", str(runs / "tiny"), "--seeds", "3")
    wait_for(lambda: len(written(folder)) >= 2, "two audit records", 240)
    children = descendants(driver.pid)
    end(driver, signal.SIGKILL)
    kill_all(children)
    before = written(folder)
    planned = candidates_of(folder)
    assert planned[0]["why"] == "undefended"
    assert 0 < len(before) < sum(len(row["trials"]) for row in planned)
    so_far = run("status", str(runs / "tiny"))
    assert f"audit: {len(before)} of {3 * len(planned)} trials done" in so_far.stdout

    again = run("audit", str(runs / "tiny"), timeout=480)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1].endswith("index.html")
    after = written(folder)
    assert before.items() <= after.items()
    assert set(records_of(folder)) == {t for row in planned for t in row["trials"]}
    found = audited(results.load(runs / "tiny"))
    assert [len(each.records) for each in found] == [3] * len(planned)
    seeds = {record.spec["seed"] for record in records_of(folder).values()}
    assert seeds == {1001, 1002, 1003}

    more = run(
        "launch", "--space", str(path), "--runs", str(runs), "--trials", "6",
        "--audit-candidates", "4", "--audit-seeds", "1", timeout=480,
    )  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert after.items() <= written(folder).items()
    assert candidates_of(folder)[: len(planned)] == planned
    assert "Audit: " in more.stdout and more.stdout.splitlines()[-1].endswith("index.html")


def _value(record: Record, metric: str) -> float:
    found = record.value(metric)
    assert found is not None
    return found.value


def test_a_masked_defense_that_leads_the_search_is_struck_off_by_its_audit(tmp_path: Path) -> None:
    # All three deploy one network: as accurate as the others, the mask alone is on the front, and
    # no tie between a more accurate and a more robust trial decides what is audited.
    path = write_space(
        tmp_path,
        scenarios=[{"dataset": "digits", "training": {"epochs": 5}}],
        defenses={planted.NAME: None, "temperature": {"T": [2]}},
        first=[{}, {planted.NAME: None}, {"temperature": {"T": 2}}],
        threats={"evasion": {"points": 64}},
        objectives=["clean_accuracy", "robust_accuracy"],
        audit={"candidates": 1, "seeds": 1, "points": 24},
        search={"algorithm": "random", "trials": 3},
    )
    done = run("launch", "--space", str(path), "--runs", str(tmp_path / "runs"), timeout=900)
    assert done.returncode == 0, done.stderr
    loaded = results.load(tmp_path / "runs" / "tiny")
    assert len({_value(record, "clean_accuracy") for record in loaded.usable}) == 1
    ranked = sorted(loaded.usable, key=lambda record: _value(record, "robust_accuracy"))
    _, second, leader = ranked
    assert leader.label == planted.NAME and not leader.why_struck_off
    assert _value(leader, "robust_accuracy") > _value(second, "robust_accuracy") + 0.2
    _, best = audited(loaded)
    assert (best.label, best.verdict) == (planted.NAME, SUSPECTED)
    assert "a score-only search breaks points that gradients do not" in best.because
    assert f"{SUSPECTED}: {planted.NAME}" in done.stdout.replace("\n", " ")
    page = (tmp_path / "runs" / "tiny" / "report" / "index.html").read_text()
    assert planted.NAME in page and "a score-only search breaks points" in page
