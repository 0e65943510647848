"""What the figures show, without drawing them."""

from pathlib import Path

import numpy as np
import pytest

from results.page.figure_infos import curves_info, effects_info, hypervolume_info, pareto_info
from results.page.figures import draw_pareto
from results.records.run import load
from results.statistics.effects import defense_effects
from results.statistics.fronts import fronts
from tests.results.run_folders import demo_records, manifest, record, temperature, write_run


def test_the_plane_has_every_compared_trial_and_the_undefended_first(tmp_path: Path) -> None:
    _, robust, _ = fronts(load(write_run(tmp_path, manifest(), demo_records())))
    info = pareto_info(robust)
    assert info is not None
    assert len(info.points) == 36
    assert sum(point.on_front for point in info.points) == len(robust.members)
    assert info.families[0] == "none"
    assert info.families[-2:] == ("stack of 2", "stack of 3")
    assert info.y_label == "robust_accuracy (higher is better)"


def test_collapsed_trials_are_left_out_of_the_frame_and_counted(tmp_path: Path) -> None:
    def scores(clean: float, robust: float) -> dict[str, float]:
        return {"clean_accuracy": clean, "robust_accuracy": robust, "membership_auc": 0.6}

    rows = [
        record("plain", metrics=scores(0.9, 0.2)),
        record("good", [temperature(1.0)], metrics=scores(0.85, 0.5)),
        record("gone", [temperature(2.0)], metrics=scores(0.1, 0.05)),
    ]
    info = pareto_info(fronts(load(write_run(tmp_path, manifest(), rows)))[1])
    assert info is not None and info.frame is not None
    low, high = info.frame.x
    assert 0.1 < low < 0.85 and high > 0.9
    assert info.frame.outside == 1
    assert info.alt().endswith(
        "1 trial lies outside of the frame, below 0.600 on the horizontal axis."
    )


def test_the_undefended_is_in_the_frame_however_bad(tmp_path: Path) -> None:
    metrics = {"clean_accuracy": 0.4, "robust_accuracy": 0.2, "membership_auc": 0.6}
    rows = [record("plain", metrics=metrics), record("good", [temperature(1.0)])]
    info = pareto_info(fronts(load(write_run(tmp_path, manifest(), rows)))[1])
    assert info is not None
    assert info.frame is None


def test_at_most_eight_members_have_their_curves_drawn(tmp_path: Path) -> None:
    overall = fronts(load(write_run(tmp_path, manifest(), demo_records())))[0]
    info = curves_info(overall)
    assert info is not None
    assert (len(info.curves), info.members) == (8, len(overall.members))
    assert len(info.curves[0].losses[0]) == 30


def test_effects_beyond_the_room_are_thinned_and_counted(tmp_path: Path) -> None:
    rows = [record("plain")] + [record(f"t{i}", [temperature(float(i))]) for i in range(40)]
    run = load(write_run(tmp_path, manifest(), rows))
    info = effects_info(defense_effects(run), fronts(run)[0])
    assert info is not None
    assert (len(info.rows), info.total) == (30, 40)


def test_nothing_to_draw_gives_no_info(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), []))
    overall, robust, _ = fronts(run)
    assert pareto_info(robust) is None
    assert hypervolume_info(overall) is None
    assert curves_info(overall) is None
    assert effects_info((), overall) is None


def test_a_crowded_plane_draws_the_intervals_of_its_front_alone_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.page.figure_infos.MOST_INTERVALS", 10)
    _, robust, _ = fronts(load(write_run(tmp_path, manifest(), demo_records())))
    info = pareto_info(robust)
    assert info is not None and info.dense
    assert "with 95 % intervals (drawn on the front alone)." in info.alt()
    axes = draw_pareto(info).axes[0]
    pictures = [line for line in axes.lines if line.get_rasterized()]
    drawn = sum(len(np.asarray(line.get_xdata())) for line in pictures)
    plain = sum(point.family == "none" and not point.on_front for point in info.points)
    assert drawn + len(robust.members) + plain == len(info.points)
