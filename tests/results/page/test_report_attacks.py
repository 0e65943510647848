"""The report of trials whose notes say how they were attacked: who is struck off, and why."""

import json
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from results import write_report
from results.records.record import Record
from results.records.run import Run, load
from results.sections.findings import best_points, findings
from results.statistics.fronts import fronts
from tests.results.run_folders import (
    ATTACK_METRICS,
    EVIL,
    attacked_records,
    evasion_notes,
    fgsm,
    manifest,
    record,
    share,
    write_run,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of the demo run with notes on the attacks."""
    folder = tmp_path_factory.mktemp("attacked")
    plain = manifest(metrics=ATTACK_METRICS)
    return write_report(write_run(folder, plain, attacked_records())).parent


def struck(run: Run) -> set[str]:
    """Return the trials that are struck off, two of the demo's."""
    trials = {single.trial for single in run.struck_off}
    assert len(trials) == 2
    return trials


def _robust(single: Record) -> float:
    value = single.value("robust_accuracy")
    assert value is not None
    return value.value


def test_struck_off_trials_are_in_no_front_and_best_at_nothing(report: Path) -> None:
    run = load(report.parent)
    highest = max(run.usable, key=_robust)
    assert highest.trial in struck(run)
    assert not struck(run) & {point.record.trial for point in best_points(run)}
    plain = json.loads((report / "report.json").read_text())
    members = {member["trial"] for front in plain["fronts"] for member in front["members"]}
    assert members and not members & struck(run)
    assert {row["trial"] for row in plain["struck_off"]} == struck(run)
    assert plain["counts"]["struck_off"] == 2
    listed = set(pd.read_csv(report / "front.csv")["trial"])
    assert listed == members
    assert struck(run) <= set(pd.read_csv(report / "trials.csv")["trial"])


def test_the_page_says_who_is_struck_off_and_why_in_one_place(report: Path) -> None:
    page = (report / "index.html").read_text().replace("<wbr>", "")
    section = page.partition('<h2 id="struck">')[2].partition("</section>")[0]
    for trial in struck(load(report.parent)):
        assert trial[:10] in section
    for words in (
        f"masking suspected: {EVIL}",
        "not attacked adaptively: no surface has a gradient <here>",
        "0.970",
    ):
        assert words in unescape(section)
    assert (
        "2 trials are struck off: on no front and best at nothing, because their robust accuracy "
        "cannot be trusted (for 1 the masking check failed and for 1 no attack knew the whole "
        'defense). The reason for each is under "Struck off the fronts".'
    ) in unescape(page)
    assert "34 of 40 trials asked for completed and count. Left out: 2 struck off, " in page


def test_the_words_of_the_check_are_escaped(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert EVIL not in page and "<here>" not in page
    assert page.count("masking suspected: &lt;script&gt;") == 2


def test_every_row_says_whether_the_attack_was_adaptive_and_comparable(report: Path) -> None:
    page = (report / "index.html").read_text()
    trials = page.partition('<h2 id="trials">')[2].partition("</section>")[0]
    rows = {row.partition("<code>")[2][:10]: row for row in trials.split("<tr>")[2:]}
    run = load(report.parent)
    assert set(rows) == {single.trial[:10] for single in run.records}
    _, blind, rejecting, stochastic = [rows[single.trial[:10]] for single in run.records[-4:]]
    assert "<td>no" in blind and "not attacked adaptively" in blind
    assert "not comparable with RobustBench: rejects" in rejecting
    assert "not comparable with RobustBench: stochastic" in stochastic
    assert "(eot, 8 draws)" in stochastic
    assert "not comparable" not in rows[run.records[0].trial[:10]]
    assert "<td>yes" in rows[run.records[0].trial[:10]]
    failed = next(single for single in run.records if single.status == "failed")
    assert "not recorded" in rows[failed.trial[:10]]


def test_robustness_is_drawn_and_broken_points_and_detection_are_listed(report: Path) -> None:
    for kind in ("png", "svg"):
        assert (report / "figures" / f"robustness.{kind}").stat().st_size > 1000
    page = (report / "index.html").read_text().replace("<wbr>", "")
    for words in (
        "it must reach 0, and it does",
        "Which attack broke the points",
        '<th scope="col">targeted_margin_pgd</th>',
        "Defenses that reject",
        "0.620 <small>[0.561, 0.676]<br>n = 270",
    ):
        assert words in page, words
    plain = json.loads((report / "report.json").read_text())
    assert [point["multiple"] for point in plain["robustness"][0]["points"]] == [
        0.0, 0.5, 1.0, 1.5, 2.0, 4.0,
    ]  # fmt: skip
    assert plain["robustness"][0]["defense"] == "none"
    assert sum(plain["broken_by"][0]["points"].values()) == 270
    assert [row["undetected_success_rate"]["value"] for row in plain["detection"]] == [0.31]


def test_a_struck_off_defense_is_never_called_better(tmp_path: Path) -> None:
    perfect = {"clean_accuracy": 0.7, "robust_accuracy": 0.99, "membership_auc": 0.6}
    masked = record("b", [fgsm(0.1)], metrics=perfect, notes=evasion_notes("noise wins"))
    write_report(write_run(tmp_path, manifest(), [record("a"), masked]))
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    (effect,) = plain["defense_effects"]
    verdicts = {change["metric"]: change["verdict"] for change in effect["changes"]}
    assert verdicts == {
        "clean_accuracy": "worse", "robust_accuracy": "struck off",
        "membership_auc": "cannot be told",
    }  # fmt: skip
    assert plain["findings"][0].startswith("The highest robust_accuracy is 0.500")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Crosses: looks better, but the trial is struck off." in page
    assert "Crosses: 1 trial struck off, on no front." in page


def test_a_run_of_struck_off_trials_alone_names_no_best(tmp_path: Path) -> None:
    rows = [record("a", [fgsm(0.1)], notes=evasion_notes("noise wins"))]
    rows[0]["metrics"]["robust_accuracy_at_radius_2"] = share(0.4)
    page = write_report(write_run(tmp_path, manifest(), rows)).read_text()
    run = load(tmp_path)
    assert findings(run, fronts(run))[0] == (
        "Every completed trial is struck off, so none is the best at anything."
    )
    assert "No trial has completed" not in page
    assert "0 of 40 trials asked for completed and count. Left out: 1 struck off." in page


def test_a_run_without_notes_has_no_section_on_attacks(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, manifest(), [record("a")])).read_text()
    assert 'id="struck"' not in page and 'id="robustness"' not in page
    assert "not recorded" in page
