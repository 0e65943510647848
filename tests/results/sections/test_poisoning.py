"""Poisoning in a report: the table, the scores that are drawn, and the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results import write_report
from results.records.record import Record
from results.records.run import load
from results.sections.poisoning import (
    attack_text,
    plain_poisoning,
    poisoned,
    rows_text,
    scores_info,
)
from tests.results.run_folders import EVIL, Json, manifest, record, share, write_run

COUNTS = {"edges": [0.0, 1.0, 2.0], "clean": [80, 9], "poisoned": [1, 8]}
BACKDOOR = {"name": "backdoor", "trigger": "patch", "size": 2, "source_class": 1, "target": 0,
            "rate": 0.1, "rate_of": "class"}  # fmt: skip


def spectral(fraction: float) -> Json:
    """Return spectral signatures as a stack's entry."""
    return {"name": "spectral_signatures", "removal_fraction": fraction}


def notes(**scores: Json) -> Json:
    """Return the notes of the backdoor threat; defense -> its histogram."""
    return {"backdoor": {"poisoned_rows": 9, "training_rows": 897, "removed_rows": 0,
                         "share_of_target_class": 9 / 98, "row_scores": scores}}  # fmt: skip


def attacked(
    trial: str,
    stack: list[Json] | None = None,
    *,
    success: float = 0.9,
    recall: float = 0.0,
    scores: Json | None = None,
    settings: Json | None = None,
) -> Json:
    """Return a record of a backdoor."""
    metrics = {
        "clean_accuracy": 0.95,
        "backdoor_success_rate": share(success, 27),
        "untriggered_success_rate": share(0.01, 27),
        "poisoned_clean_accuracy": 0.96,
        "poison_recall": share(recall, 9),
        "clean_removal_rate": share(0.1, 888),
        "samples_removed": {"value": 135.0, "low": 135.0, "high": 135.0, "n": 1},
    }
    found = notes(**({"spectral_signatures": scores} if scores else {}))
    return record(
        trial, stack, metrics=metrics, notes=found, spec={"threats": [settings or BACKDOOR]}
    )


def records(folder: Path, *rows: Json) -> tuple[Record, ...]:
    """Load the run of these records and give those that were poisoned."""
    run = load(write_run(folder, manifest(), list(rows)))
    assert not run.corrupt, run.corrupt
    return poisoned(run)


def test_poisoned_trials_are_listed_from_low_to_high_success(tmp_path: Path) -> None:
    rows = [attacked("a"), record("b"), attacked("c", [spectral(0.1)], success=0.1)]
    assert [row.trial for row in records(tmp_path, *rows)] == ["c", "a"]


def test_equal_scores_are_drawn_once_for_the_trial_that_found_most(tmp_path: Path) -> None:
    found = scores_info(
        records(
            tmp_path,
            attacked("none"),
            attacked("few", [spectral(0.1)], recall=4 / 9, scores=COUNTS),
            attacked("many", [spectral(0.2)], recall=8 / 9, scores=COUNTS),
        )
    )
    assert found is not None and found.total == 1
    (panel,) = found.panels
    assert panel.record.trial == "many" and panel.sharing == 2
    assert (panel.histogram.clean, panel.histogram.poisoned) == ((80, 9), (1, 8))
    assert panel.title().endswith("many, and 1 more: poison_recall 0.89")
    assert "9 poisoned among 89 clean rows" in found.alt() and "not drawn" not in found.alt()


def test_of_many_scorings_six_are_drawn_evenly_with_the_best_and_the_worst(tmp_path: Path) -> None:
    rows = [
        attacked(f"t{found}", [spectral(0.1)], recall=found / 10,
                 scores=COUNTS | {"clean": [80 + found, 9]})
        for found in range(11)
    ]  # fmt: skip
    found = scores_info(records(tmp_path, *rows))
    assert found is not None and found.total == 11
    assert [panel.record.trial for panel in found.panels] == ["t10", "t8", "t6", "t4", "t2", "t0"]
    assert "5 more are not drawn" in found.alt()


def test_without_a_filter_that_scores_nothing_is_drawn(tmp_path: Path) -> None:
    assert scores_info(records(tmp_path, attacked("a"))) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "patch of 2, 1 to 0, rate 0.1 of the class"),
        ({"trigger": "none"}, "labels flipped, 1 to 0, rate 0.1 of the class"),
        ({"trigger": "blend", "source_class": "all", "rate_of": "set"},
         "blend, all to 0, rate 0.1 of the set"),
    ],
)  # fmt: skip
def test_an_attack_is_written_in_words(settings: Json, words: str, tmp_path: Path) -> None:
    (row,) = records(tmp_path, attacked("a", settings=BACKDOOR | settings))
    assert attack_text(row) == words
    assert rows_text(row) == "9 of 897 (9.18 % of the target class)"


def test_each_of_several_attacks_is_written_with_its_pairs(tmp_path: Path) -> None:
    row = attacked("a")
    row["notes"]["backdoor"]["attacks"] = [
        {"attack": name, "success": share(mean, 54),
         "pairs": [{"source": 7, "target": 1, "success": share(first, 27)},
                   {"source": 3, "target": 8, "success": share(second, 27)}]}
        for name, mean, first, second in (("blend", 0.5, 0.9, 0.1), ("patch", 0.25, 0.5, 0.0))
    ]  # fmt: skip
    (found,) = records(tmp_path, row)
    words = ("blend 0.50 (7 to 1: 0.90, 3 to 8: 0.10); "
             "patch 0.25 (7 to 1: 0.50, 3 to 8: 0.00)")  # fmt: skip
    assert attack_text(found) == words
    first, second = plain_poisoning([found])[0]["attacks"]
    assert (first["attack"], second["attack"]) == ("blend", "patch")
    assert second["pairs"]["7 to 1"]["value"] == 0.5 and first["success"]["n"] == 54


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"clean": [1]}, "no count for each bin of the scores of spectral_signatures"),
        ({"edges": [0.0, 2.0, 1.0]}, "bins of the scores of spectral_signatures that do not rise"),
    ],
)
def test_notes_of_another_shape_make_the_record_unreadable(
    scores: Json, words: str, tmp_path: Path
) -> None:
    rows = [attacked("a", [spectral(0.1)], scores=COUNTS | scores)]
    run = load(write_run(tmp_path, manifest(), rows))
    assert not run.records and words in run.corrupt[0][1]


def test_the_report_draws_lists_and_writes_poisoning(tmp_path: Path) -> None:
    rows = [
        attacked("undefended", success=0.963, settings=BACKDOOR | {"trigger": EVIL}),
        attacked("filtered", [spectral(0.1)], success=0.037, recall=8 / 9, scores=COUNTS),
    ]
    folder = write_run(tmp_path, manifest(), rows)
    page = write_report(folder).read_text().replace("<wbr>", "")
    section = page.partition('<h2 id="poisoning">')[2].partition("</section>")[0]
    for words in (
        "Scores of clean and poisoned rows",
        '<th scope="col">backdoor_success_rate</th>',
        "patch of 2, 1 to 0",
        "9 of 897 (9.18 % of the target class)",
        "0.963",
        "n = 27",
    ):
        assert words in section, words
    assert EVIL not in page
    for kind in ("png", "svg"):
        assert (folder / "report" / "figures" / f"poison_scores.{kind}").stat().st_size > 1000
    plain = json.loads((folder / "report" / "report.json").read_text())["poisoning"]
    assert [row["trial"] for row in plain] == ["filtered", "undefended"]
    assert plain[0]["metrics"]["backdoor_success_rate"]["n"] == 27
    assert plain[0]["row_scores"][0]["poisoned"] == [1, 8] and plain[1]["row_scores"] == []


def test_a_run_without_poison_has_no_section_on_it(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, manifest(), [record("a")])).read_text()
    assert 'id="poisoning"' not in page
    assert json.loads((tmp_path / "report" / "report.json").read_text())["poisoning"] == []
