"""Privacy: whose scores are drawn, which metrics stand in the table, and the JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.patches import StepPatch

from results import write_report
from results.records.run import Run, load
from results.sections.privacy import (
    delta_text,
    draw_membership,
    membership_info,
    privacy_columns,
    strongest_text,
    telling,
)
from tests.results.run_folders import Json, manifest, record, share, temperature, write_run

SCORES: Json = {"edges": [-2.0, -1.0, 0.0, 1.0], "members": [1, 1, 8], "non_members": [10, 5, 5]}


def attacked(trial: str, stack: list[Json], auc: float, **changes: Any) -> Json:
    """Return a record whose membership and inversion were measured."""
    membership: Json = {
        "attack": "rmia", "scores": SCORES, "members": 10, "non_members": 20,
        "shadows": {"models": 4}, **changes.pop("membership", {}),
    }  # fmt: skip
    metrics: Json = {
        "membership_auc": auc,
        "membership_auc_loss_threshold": auc - 0.1,
        "membership_auc_rmia": auc,
        "clean_accuracy": 0.9,
        "inversion_accuracy": 0.75,
        "tpr_at_fpr_0_001": {"value": None, "reason": "20 non-members are too few"},
        "dp_epsilon": {"value": None, "reason": "the training is not differentially private"},
        **changes.pop("metrics", {}),
    }
    notes = {"membership": membership, "clean": changes.pop("clean", {})}
    return record(trial, stack, metrics=metrics, notes=notes, **changes)


def run_of(folder: Path, rows: list[Json]) -> Run:
    """Load a run of these records, none of which may be unreadable."""
    run = load(write_run(folder, manifest(), rows))
    assert not run.corrupt, run.corrupt
    return run


def private(trial: str) -> Json:
    """Return a record whose training was differentially private."""
    epsilon = {"value": 3.5, "low": 3.5, "high": 3.5, "n": 900}
    return attacked(
        trial, [{"name": "dp_sgd", "noise_multiplier": 1.0}], 0.5,
        metrics={"dp_epsilon": epsilon}, clean={"dp_delta": 1e-5},
    )  # fmt: skip


def test_panels_are_the_undefended_and_then_from_most_to_least_leakage(tmp_path: Path) -> None:
    rows = [
        attacked("low", [temperature(1.5)], 0.55),
        attacked("high", [temperature(2.0)], 0.8),
        attacked("plain", [], 0.7),
        attacked("again", [], 0.6, seed=1),
    ]
    info = membership_info(run_of(tmp_path, rows))
    assert info is not None and info.trials == 3
    assert [panel.auc.value for panel in info.panels][1:] == [0.8, 0.55]
    assert info.panels[0].label == "undefended"
    assert "temperature(T=2): rmia, AUC 0.800" in info.alt()
    assert "not shown" not in info.alt()


def test_bars_are_shares_of_each_side(tmp_path: Path) -> None:
    info = membership_info(run_of(tmp_path, [attacked("plain", [], 0.7)]))
    assert info is not None
    figure = draw_membership(info)
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    heights = [list(bar.get_data()[0]) for bar in bars]
    assert heights == [pytest.approx([0.1, 0.1, 0.8]), pytest.approx([0.5, 0.25, 0.25])]
    assert figure.axes[0].get_title() == "undefended: rmia\nAUC 0.700"


def test_of_many_the_whole_range_is_shown(tmp_path: Path) -> None:
    rows = [attacked(f"t{T}", [temperature(float(T))], 0.5 + T / 100) for T in range(1, 20)]
    info = membership_info(run_of(tmp_path, rows))
    assert info is not None and len(info.panels) == 6
    assert [info.panels[place].auc.value for place in (0, -1)] == [0.69, 0.51]
    assert "13 more are not shown" in info.alt()


def test_the_table_goes_from_least_to_most_leakage_with_the_attacks_side_by_side(
    tmp_path: Path,
) -> None:
    rows = [attacked("plain", [], 0.7), private("dp"), record("old", metrics={"ece": 0.1})]
    records = telling(run_of(tmp_path, rows))
    assert [each.trial for each in records] == ["dp", "plain"]
    assert privacy_columns(records) == (
        "clean_accuracy", "membership_auc", "membership_auc_loss_threshold", "membership_auc_rmia",
        "dp_epsilon", "inversion_accuracy",
    )  # fmt: skip
    assert strongest_text(records[0]) == "rmia, 4 shadow models"
    turned = attacked("turned", [], 0.6, membership={"turned_round": True, "shadows": None})
    (found,) = telling(run_of(tmp_path / "turned", [turned]))
    assert strongest_text(found) == "rmia turned round"
    assert [delta_text(each) for each in records] == ["1e-05", "\u2013"]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (SCORES | {"members": [1, 1]}, "no count of membership scores"),
        (SCORES | {"edges": [0.0, 2.0, 1.0, 3.0]}, "that do not rise"),
        (SCORES | {"non_members": [0, 0, 0]}, "of no member or of no non-member"),
        ({"edges": [0.0, 1.0]}, "lacks 'members'"),
    ],
)
def test_notes_of_another_shape_make_the_record_unreadable(
    scores: Json, words: str, tmp_path: Path
) -> None:
    row = attacked("a", [], 0.6, membership={"scores": scores})
    run = load(write_run(tmp_path, manifest(), [row]))
    assert not run.records
    assert words in run.corrupt[0][1]


def test_the_report_draws_lists_and_writes_privacy(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), [attacked("plain", [], 0.7), private("dp")])
    page = write_report(folder).read_text().replace("<wbr>", "")
    section = page.partition('<h2 id="privacy">')[2].partition("</section>")[0]
    for words in (
        "What the strongest membership attack sees",
        "rmia, 4 shadow models",
        '<th scope="col">membership_auc_loss_threshold</th>',
        '<th scope="col">dp_epsilon</th><th scope="col">dp_delta</th>',
        "1e-05",
        "the training is not differentially private",
    ):
        assert words in section, words
    for kind in ("png", "svg"):
        file = folder / "report" / "figures" / f"membership_scores.{kind}"
        assert file.stat().st_size > 1000
    first, second = json.loads((folder / "report" / "report.json").read_text())["privacy"]
    assert (first["trial"], first["dp_delta"], first["shadows"]) == ("dp", 1e-5, 4)
    assert second["metrics"]["membership_auc_rmia"] == share(0.7)
    assert second["metrics"]["dp_epsilon"] is None


def test_a_run_without_privacy_has_no_section_on_it(tmp_path: Path) -> None:
    row = record("a", metrics={"clean_accuracy": 0.9, "robust_accuracy": 0.5})
    page = write_report(write_run(tmp_path, manifest(), [row])).read_text()
    assert 'id="privacy"' not in page
    assert json.loads((tmp_path / "report" / "report.json").read_text())["privacy"] == []
