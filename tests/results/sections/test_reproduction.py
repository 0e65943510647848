"""Published beside ours: cells, and the verdict on each kind of claim, each way."""

from pathlib import Path
from typing import Any

import pytest

from results.page.report import write_report
from results.records.run import Run, load
from results.sections.reproduction import compare_published, same_settings
from tests.results.run_folders import fgsm, manifest, record, share, write_run

Json = dict[str, Any]
METRIC = "adversarial_accuracy_fgsm"


def test_cells_pool_the_seeds_and_say_whether_the_published_figure_lies_within(
    tmp_path: Path,
) -> None:
    table = compare_published(_run(tmp_path, []))
    by_place = {(cell.row, cell.metric): cell for cell in table.cells}
    low = by_place["low", METRIC]
    assert low.ours is not None
    assert (low.seeds, low.ours.n, low.within) == (2, 270, True)
    assert low.ours.value == pytest.approx(0.205)
    assert by_place["high", METRIC].within is False
    alone = by_place["low", "clean_accuracy"]
    assert alone.ours is not None
    assert (alone.published, alone.within) == (None, None)
    absent = by_place["absent", METRIC]
    assert (absent.ours, absent.reason) == (None, "row not run")
    assert by_place["failed", METRIC].reason == "row not run to its end: failed"
    assert table.data.startswith("digits (")
    assert table.agreement == "1 of 2 published figures lie within our 95 % intervals."


@pytest.mark.parametrize(
    ("expect", "rows", "value", "verdict"),
    [
        ("rises", ["low", "middle", "high"], None, "holds"),
        ("falls", ["low", "middle", "high"], None, "fails"),
        ("falls", ["high", "middle", "low"], None, "holds"),
        ("rises", ["high", "low"], None, "fails"),
        ("rises", ["low", "twin"], None, "cannot be told"),
        ("falls", ["high", "low", "twin"], None, "cannot be told"),
        ("falls", ["twin", "low", "high"], None, "fails"),
        ("above", ["middle", "high"], 0.3, "holds"),
        ("above", ["low", "high"], 0.5, "fails"),
        ("above", ["high"], 0.81, "cannot be told"),
        ("below", ["low", "middle"], 0.7, "holds"),
        ("below", ["high"], 0.5, "fails"),
        ("below", ["middle"], 0.5, "cannot be told"),
        ("rises", ["low", "absent"], None, "cannot be told"),
        ("rises", ["low", "unheard_of"], None, "cannot be told"),
        ("rises", ["low"], None, "cannot be told"),
    ],
)
def test_verdicts(
    tmp_path: Path, expect: str, rows: list[str], value: float | None, verdict: str
) -> None:
    claim: Json = {"text": "t", "expect": expect, "cells": [[row, METRIC] for row in rows]}
    if value is not None:
        claim["value"] = value
    (found,) = compare_published(_run(tmp_path, [claim])).claims
    assert found.verdict == verdict
    if {"absent", "unheard_of"} & set(rows):
        assert found.because.startswith("row not run")
    elif len(rows) > 1 or value is not None:
        assert "[" in found.because


def test_an_unanswered_claim_says_why(tmp_path: Path) -> None:
    claim = {"text": "t", "expect": "unanswered", "cells": [], "why": "no trigger disclosed"}
    (found,) = compare_published(_run(tmp_path, [claim])).claims
    assert (found.verdict, found.because) == ("cannot be told", "no trigger disclosed")


def test_a_row_that_several_specs_match_is_not_pooled(tmp_path: Path) -> None:
    rows = [record("a", [fgsm(0.1)]), record("b", [fgsm(0.1)], training={"epochs": 5})]
    row = {"name": "r", "stack": [fgsm(0.1)], "cells": {"clean_accuracy": 0.9}}
    published = {"table": "A1", "source": "s", "not_disclosed": [], "rows": [row]}
    run = load(write_run(tmp_path, manifest(published=published), rows))
    (cell,) = compare_published(run).cells
    assert cell.ours is None
    assert "2 different specs" in cell.reason
    pinned = {**published, "rows": [{**row, "training": {"epochs": 5}}]}
    run = load(write_run(tmp_path, manifest(published=pinned), rows))
    assert compare_published(run).cells[0].seeds == 1


def test_settings_agree_up_to_rounding_but_not_in_type() -> None:
    assert same_settings(
        [{"eps": 8 / 255, "on": False}], [{"eps": 0.03137254901960784, "on": False}]
    )
    assert same_settings({"a": (1, 2.0)}, {"a": [1.0, 2]})
    assert not same_settings({"a": 1}, {"a": True})
    assert not same_settings({"a": 1}, {"a": 1, "b": 2})
    assert not same_settings(None, 0)


def test_a_run_that_reproduces_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reproduces no published table"):
        compare_published(load(write_run(tmp_path, manifest(), [])))


def test_the_report_shows_the_published_table_its_claims_and_figures(tmp_path: Path) -> None:
    places = [["low", METRIC], ["high", METRIC]]
    claim: Json = {"text": "Rises with <eps>.", "expect": "rises", "cells": places}
    run = _run(tmp_path, [claim])
    page = write_report(run.path).read_text()
    assert "Published | ours: table A1" in page
    assert "Rises with &lt;eps&gt;." in page
    assert "row not run" in page
    assert (run.path / "report" / "figures" / "published_1.png").is_file()


def _run(folder: Path, claims: list[Json]) -> Run:
    scores = {"low": (0.1, 0.2), "middle": (0.2, 0.5), "high": (0.3, 0.8), "twin": (0.15, 0.22)}
    rows: list[Json] = [
        {"name": name, "label": f"eps {eps}", "stack": [fgsm(eps)], "training": {"epochs": 30},
         "cells": {METRIC: 0.2, "clean_accuracy": None} if name == "low" else {METRIC: None}}
        for name, (eps, _) in scores.items()
    ]  # fmt: skip
    rows[2]["cells"] = {METRIC: 0.1}
    rows.append({"name": "absent", "stack": [fgsm(0.9)], "cells": {METRIC: 0.1}})
    rows.append({"name": "failed", "stack": [fgsm(0.8)], "cells": {METRIC: 0.1}})
    points = [[eps, name, METRIC] for name, (eps, _) in scores.items()]
    figure = {"title": "Accuracy", "x_label": "eps", "y_label": "accuracy",
              "series": [{"label": "adversarial", "points": points}]}  # fmt: skip
    published = {"table": "A1", "source": "the paper", "not_disclosed": ["the trigger"],
                 "rows": rows, "claims": claims, "figures": [figure]}  # fmt: skip
    records = [
        record(name, [fgsm(eps)], metrics={METRIC: share(score), "clean_accuracy": 0.9})
        for name, (eps, score) in scores.items()
    ]
    records.append(record("again", [fgsm(0.1)], metrics={METRIC: 0.21}, seed=1))
    records.append(record("failed", [fgsm(0.8)], status="failed", metrics={}, error="boom"))
    return load(write_run(folder, manifest(published=published), records))
