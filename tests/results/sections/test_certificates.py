"""Certificates: certified accuracy over the radius, who is shown, the table and the JSON."""

import json
from pathlib import Path

import pytest
from scipy import stats

from results import write_report
from results.records.record import Record
from results.records.run import load
from results.sections.certificates import (
    CertifiedCurve,
    certificate_columns,
    certificates_info,
    certified_curve,
    certifying,
    confidence_text,
    share,
    short_labels,
)
from results.statistics.fronts import fronts
from tests.results.run_folders import Json, evasion_notes, manifest, record, write_run

RADII = [0.5, 0.25, 0.0, 0.25, 1.0, 0.7]
RIGHT = [True, True, False, True, True, False]


def smoothing(sigma: float) -> Json:
    """Return randomized smoothing as a stack's entry."""
    return {"name": "randomized_smoothing", "sigma": sigma}


def certified(
    trial: str, sigma: float = 0.25, *, scale: float = 1.0, clean: float = 0.9, **changes: object
) -> Json:
    """Return a record whose radii are RADII times `scale`, with the metrics of its certificates."""
    radii = [scale * radius for radius in RADII]
    reached = [radius for radius, right in zip(radii, RIGHT, strict=True) if right]
    n = len(radii)
    average = sum(reached) / n
    return record(
        trial,
        [smoothing(sigma)],
        metrics={
            "clean_accuracy": clean,
            "robust_accuracy": 0.4,
            "membership_auc": 0.6,
            "certified_accuracy": share_of(4),
            "certified_accuracy_at_0.5": share_of(sum(radius >= 0.5 for radius in reached)),
            "certified_accuracy_at_0.25": share_of(sum(radius >= 0.25 for radius in reached)),
            "certified_precision": {"value": 0.8, "low": 0.4, "high": 0.96, "n": 5},
            "average_certified_radius": {"value": average, "low": 0.0, "high": 1.0, "n": n},
            "abstention_rate": share_of(1),
        },
        notes={"certification": notes(radii) | changes},
    )


def share_of(count: int, n: int = len(RADII)) -> Json:
    """Return a share of the points, its interval left wide."""
    return {"value": count / n, "low": 0.0, "high": 1.0, "n": n}


def notes(radii: list[float]) -> Json:
    """Return the notes of the certification threat."""
    return {
        "points": len(radii), "radii": radii, "right": RIGHT, "failure_probability": 0.001,
        "norm": "l2",
    }  # fmt: skip


def one(folder: Path, row: Json) -> Record:
    """Load the run of one record."""
    run = load(write_run(folder, manifest(), [row]))
    assert not run.corrupt, run.corrupt
    return run.records[0]


def curve_of(folder: Path, row: Json) -> CertifiedCurve:
    """Return the curve of one record."""
    curve = certified_curve(one(folder, row))
    assert curve is not None
    return curve


def test_the_curve_counts_right_points_of_at_least_the_radius(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, certified("a"))
    assert [radius for radius, _ in curve.points] == [0.0, 0.25, 0.5, 1.0]
    assert [round(value.value * 6) for _, value in curve.points] == [4, 4, 2, 1]
    for radius in (0.0, 0.1, 0.25, 0.2500001, 0.5, 0.7, 1.0, 1.01):
        pairs = zip(RADII, RIGHT, strict=True)
        counted = sum(right and reached > 0 and reached >= radius for reached, right in pairs)
        assert curve.at(radius).value == pytest.approx(counted / 6), radius
        assert curve.at(radius).n == 6


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (1, 500), (499, 500)])
def test_the_band_is_wilson_s(count: int, n: int) -> None:
    interval = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    found = share(count, n)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_a_trial_that_certifies_no_right_class_has_no_curve(tmp_path: Path) -> None:
    assert certified_curve(one(tmp_path / "none", record("a"))) is None
    assert certified_curve(one(tmp_path / "zero", certified("a", scale=0.0))) is None
    assert certified_curve(one(tmp_path / "wrong", certified("a", right=[False] * 6))) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"right": [True]}, "no radius and no verdict"),
        ({"right": [1] * 6}, "neither that it is right nor wrong"),
        ({"radii": [-0.1] * 6}, "negative or not finite"),
        ({"norm": "linf"}, "in the norm 'linf'; known: l2"),
    ],
)
def test_notes_of_another_shape_make_the_record_unreadable(
    changes: Json, words: str, tmp_path: Path
) -> None:
    run = load(write_run(tmp_path, manifest(), [certified("a", **changes)]))
    assert not run.records
    assert words in run.corrupt[0][1]


def test_members_of_the_front_are_drawn_first_and_at_most_six(tmp_path: Path) -> None:
    beaten = [
        certified(f"b{step}", 0.1 + step / 100, scale=2 + step, clean=0.5) for step in range(8)
    ]
    run = load(write_run(tmp_path, manifest(), [certified("member"), *beaten]))
    front = fronts(run)[0]
    assert [member.trial for member in front.members] == ["member"]
    info = certificates_info(front)
    assert info is not None
    assert [curve.record.trial for curve in info.curves] == ["member", "b7", "b6", "b5", "b4", "b3"]
    assert info.total == 9
    assert "of 6 trials of 9 (members of the front" in info.alt()


def test_a_struck_off_trial_keeps_its_certificates(tmp_path: Path) -> None:
    masked = certified("masked")
    masked["notes"] |= evasion_notes("noise wins")
    run = load(write_run(tmp_path, manifest(), [record("plain"), masked]))
    info = certificates_info(fronts(run)[0])
    assert run.struck_off and info is not None
    assert [curve.record.trial for curve in info.curves] == ["masked"]


def test_the_table_lists_who_gives_certificates_and_its_thresholds_in_order(tmp_path: Path) -> None:
    plain = record("plain", notes={"certification": notes([0.0] * 6) | {
        "failure_probability": None}})  # fmt: skip
    nothing = certified("nothing", 1.0, scale=0.0)
    run = load(write_run(tmp_path, manifest(), [plain, nothing, certified("some")]))
    rows = certifying(run)
    assert [row.trial for row in rows] == ["some", "nothing"]
    assert certificate_columns(rows) == (
        "clean_accuracy", "certified_accuracy", "certified_accuracy_at_0.25",
        "certified_accuracy_at_0.5", "average_certified_radius", "certified_precision",
        "abstention_rate",
    )  # fmt: skip
    assert confidence_text(rows[0]) == "99.9 %"


def test_a_legend_names_the_settings_that_differ(tmp_path: Path) -> None:
    bound = {"name": "pixeldp", "placement": "layer1", "sensitivity": "normalized"}
    stacks: list[list[Json]] = [
        [bound | {"attack_bound": 0.1}],
        [bound | {"attack_bound": 0.3}, smoothing(0.25)],
        [bound | {"attack_bound": 0.3, "sensitivity": "measured"}],
    ]
    rows = [record(f"trial{place}abc", stack) for place, stack in enumerate(stacks)]
    records = load(write_run(tmp_path, manifest(), rows)).records
    assert short_labels(records) == [
        "trial0ab  pixeldp(sensitivity=normalized, attack_bound=0.1)",
        "trial1ab  pixeldp(sensitivity=normalized, attack_bound=0.3) + randomized_smoothing",
        "trial2ab  pixeldp(sensitivity=measured, attack_bound=0.3)",
    ]


def test_the_report_draws_lists_and_writes_certificates(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), [record("plain"), certified("some")])
    page = write_report(folder).read_text().replace("<wbr>", "")
    section = page.partition('<h2 id="certificates">')[2].partition("</section>")[0]
    for words in (
        "Certified accuracy against radius",
        "randomized_smoothing(sigma=0.25)",
        "99.9 %",
        "Nothing is proven for other norms",
        '<th scope="col">certified_accuracy_at_0.25</th>',
        "starts at 0.667",
        "ends at 1.000",
    ):
        assert words in section, words
    for kind in ("png", "svg"):
        assert (folder / "report" / "figures" / f"certificates.{kind}").stat().st_size > 1000
    (row,) = json.loads((folder / "report" / "report.json").read_text())["certificates"]
    assert (row["trial"], row["norm"], row["failure_probability"]) == ("some", "l2", 0.001)
    assert [point["radius"] for point in row["curve"]] == [0.0, 0.25, 0.5, 1.0]
    assert row["metrics"]["certified_accuracy_at_0.5"]["value"] == pytest.approx(2 / 6)


def test_a_run_without_certificates_has_no_section_on_them(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, manifest(), [record("a")])).read_text()
    assert 'id="certificates"' not in page
    assert json.loads((tmp_path / "report" / "report.json").read_text())["certificates"] == []
