"""The table of costs: whose rows it has, by which figures, and what a stack promises."""

from pathlib import Path

from results import load
from results.audit.audit import audited
from results.sections.costs import costs, guarantee
from results.statistics.fronts import fronts
from tests.results.audits import write_demo_audit
from tests.results.run_folders import Json, fgsm, manifest, record, temperature, write_run

SMOOTHING: Json = {"name": "randomized_smoothing", "sigma": 0.25}
KINDS = {
    "temperature": {"meaning": "", "guarantee": "empirical", "source": ""},
    "randomized_smoothing": {"meaning": "", "guarantee": "certified", "source": ""},
}
SECONDS = {"value": 3.0, "low": 2.5, "high": 3.5, "n": 3}


def test_a_stack_promises_what_its_strongest_part_proves(tmp_path: Path) -> None:
    stacks = [[], [temperature(2.0)], [temperature(2.0), SMOOTHING]]
    rows = [record(f"t{place}", stack) for place, stack in enumerate(stacks)]
    run = load(write_run(tmp_path, manifest(defenses=KINDS), rows))
    assert [guarantee(run, each) for each in run.records] == [
        "none", "empirical", "certified by randomized_smoothing",
    ]  # fmt: skip


def test_the_audited_come_first_and_once_by_their_audited_figures(tmp_path: Path) -> None:
    run = load(write_demo_audit(tmp_path))
    rows = costs(run, fronts(run)[0], audited(run))
    assert [row.trial for row in rows if row.audited] == [
        "plain000", "mild0000", "smooth00", "strong00", "masked00", "partial0",
    ]  # fmt: skip
    assert len({row.trial for row in rows}) == len(rows)
    assert rows[0].values["latency_ms_p95"].value == 2.5


def test_each_defense_alone_and_the_front_follow_and_what_was_never_timed_is_left_out(
    tmp_path: Path,
) -> None:
    timed = {"clean_accuracy": 0.9, "robust_accuracy": 0.5, "membership_auc": 0.6,
             "training_seconds": SECONDS}  # fmt: skip
    rows = [
        record("alone", [fgsm(0.1)], metrics=timed),
        record("other", [fgsm(0.1)], metrics=timed, seed=1),
        record("plain", metrics=timed),
        record("untimed", [temperature(2.0)]),
        record("stacked", [fgsm(0.1), temperature(2.0)], metrics=timed | {"robust_accuracy": 0.9}),
        record("beaten", [fgsm(0.2), temperature(2.0)], metrics=timed | {"robust_accuracy": 0.1}),
    ]
    run = load(write_run(tmp_path, manifest(), rows))
    found = costs(run, fronts(run)[0], ())
    assert [row.trial for row in found] == ["plain", "alone", "stacked"]
    assert found[0].undefended and not any(row.audited for row in found)
