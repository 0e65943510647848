"""The report: what it says, what it escapes, and that it needs nothing but itself."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from results import write_report
from results.errors import ResultsError
from tests.results.audits import write_demo_audit
from tests.results.run_folders import EVIL, demo_records, fgsm, manifest, record, share, write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of the demo run, with one record that cannot be read."""
    folder = write_run(tmp_path_factory.mktemp("demo"), manifest(), demo_records())
    (folder / "records" / "broken.json").write_text("{")
    return write_report(folder).parent


def test_all_files_exist(report: Path) -> None:
    names = {file.name for file in report.iterdir()}
    assert names == {
        "index.html", "plotly.min.js", "report.json", "trials.csv", "front.csv", "figures",
    }  # fmt: skip
    figures = {file.name for file in (report / "figures").iterdir()}
    assert figures == {
        f"{name}.{kind}"
        for name in ("pareto_robust_accuracy", "pareto_membership_auc", "hypervolume",
                     "learning_curves", "defense_effects")
        for kind in ("png", "svg", "pdf")
    }  # fmt: skip
    assert (report.parent / "trials.parquet").is_file()


def test_the_page_recommends_first_and_then_says_what_was_swept_and_found(report: Path) -> None:
    page = (report / "index.html").read_text().replace("<wbr>", "")
    order = [
        page.index("Nothing is recommended: no candidate was audited."),
        page.index("python -m orchestrator audit runs/demo"),
        page.index("36 of 40 trials asked for"),
        page.index("python -m orchestrator launch --space full"),
        page.index('<h2 id="choose">'),
        page.index("The highest robust_accuracy is 0.792 [0.739, 0.836] on 270 points"),
        page.index("<tbody>"),
    ]
    assert order == sorted(order)
    for words in (
        "the difference is significant: the defense is better",
        "36 of 40 trials asked for completed and count. Left out: 2 failed, 1 stopped before the "
        "end, 1 stale (a stage has changed since), 1 with a record that cannot be read.",
        "These are screen figures",
        "Every recommendation is unverified until an audit",
        "Linf ball of eps 0.15",
        "Every defense alone, then the search.",
        "robust_accuracy n = 270",
        "python -m orchestrator launch --space full",
        "Share of points that stay right under attack.",
        "broken.json",
        "stale (evasion)",
    ):
        assert words in page, words


def test_error_texts_are_escaped(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; loss became NaN" in page


def test_the_page_refers_to_nothing_outside_its_folder_and_every_image_has_words(
    report: Path,
) -> None:
    page = _Page()
    page.feed((report / "index.html").read_text())
    inside = [reference for reference in page.references if not reference.startswith("#")]
    assert "plotly.min.js" in inside and len(inside) > 15
    assert all((report / reference).is_file() for reference in inside)
    assert len(page.alts) == 5
    assert all(page.alts)
    assert page.headings[0] == "h1" and page.headings.count("h1") == 1
    assert not re.search(r"url\(|@import", (report / "index.html").read_text())


def test_every_link_of_the_contents_leads_somewhere(report: Path) -> None:
    page = _Page()
    page.feed((report / "index.html").read_text())
    anchors = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert {"recommendation", "choose", "effects", "fronts", "trials"} <= anchors
    assert anchors <= page.ids


def test_of_a_running_sweep_no_figure_is_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), demo_records()[:12])
    page = write_report(folder, running=True)
    assert "Running: 12 of 40</strong>" in page.read_text()
    assert "Figures for print are drawn when the run ends." in page.read_text()
    assert "<img" not in page.read_text()
    assert not list((tmp_path / "report" / "figures").glob("*"))


def test_json_says_the_same(report: Path) -> None:
    plain = json.loads((report / "report.json").read_text())
    assert plain["counts"] == {
        "asked": 40, "done": 36, "struck_off": 0, "failed": 2, "stopped": 1, "stale": 1,
        "corrupt": 1,
    }  # fmt: skip
    assert plain["findings"][0].startswith("The highest robust_accuracy is 0.792")
    assert [front["key"] for front in plain["fronts"]] == [
        "all", "robust_accuracy", "membership_auc",
    ]  # fmt: skip
    assert plain["fronts"][0]["left_out"]["failed"] == 2
    assert 0 < plain["hypervolume"] < 1
    assert plain["published"] is None
    assert EVIL in {failure["error"] for failure in plain["failures"]}


def test_the_same_run_gives_the_same_files(report: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), demo_records())
    (folder / "records" / "broken.json").write_text("{")
    again = write_report(folder).parent
    for name in ("index.html", "report.json", "figures/hypervolume.svg", "figures/hypervolume.png"):
        assert (again / name).read_bytes() == (report / name).read_bytes(), name


def test_a_run_without_a_completed_trial_is_reported_as_such(tmp_path: Path) -> None:
    rows = [record("a", status="failed", metrics={}, error="no memory")]
    page = write_report(write_run(tmp_path, manifest(), rows)).read_text()
    assert "No trial has completed yet" in page
    assert "0 of 40 trials asked for completed and count. Left out: 1 failed." in page
    assert "<img" not in page


def test_an_empty_run_is_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path, manifest(), [])
    figures = folder / "report" / "figures"
    figures.mkdir(parents=True)
    (figures / "old.png").write_text("")
    assert "No trial has completed yet" in write_report(folder).read_text()
    assert not list(figures.iterdir())


def test_without_an_undefended_trial_the_page_says_so(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path, manifest(), [record("a", [fgsm(0.1)])])).read_text()
    assert "There is no undefended trial of the same scenario to compare with." in page


def test_a_best_that_cannot_be_told_apart_is_called_so(tmp_path: Path) -> None:
    scores = {"clean_accuracy": 0.9, "robust_accuracy": 0.51, "membership_auc": 0.6}
    rows = [record("a"), record("b", [fgsm(0.1)], metrics=scores)]
    page = write_report(write_run(tmp_path, manifest(), rows)).read_text()
    assert "so the difference is not significant on these points" in page


def test_a_best_that_is_no_gain_says_what_it_loses_in_the_same_sentence(tmp_path: Path) -> None:
    scores = {"clean_accuracy": 0.6, "robust_accuracy": 0.5, "membership_auc": 0.59}
    rows = [record("a"), record("b", [fgsm(0.1)], metrics=scores)]
    write_report(write_run(tmp_path, manifest(), rows))
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    sentence = next(words for words in plain["findings"] if words.startswith("The lowest"))
    assert (
        "(trial b), which is not significantly different from undefended here and is worse in "
        "clean_accuracy (-0.300 ["
    ) in sentence


def test_a_bare_manifest_is_enough(tmp_path: Path) -> None:
    optional = ("description", "radius", "seed", "command", "created", "data_title", "defenses",
                "published", "stage_versions")  # fmt: skip
    bare = {name: part for name, part in manifest().items() if name not in optional}
    page = write_report(write_run(tmp_path, bare, [record("a"), record("b", [fgsm(0.1)])]))
    assert "Linf ball of the data set&#39;s standard radius" in page.read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no manifest"):
        write_report(tmp_path)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.alts: list[str] = []
        self.headings: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.references += [found[name] or "" for name in ("src", "href") if name in found]
        self.ids.add(found.get("id") or "")
        if tag == "img":
            self.alts.append(found.get("alt") or "")
        if re.fullmatch(r"h\d", tag):
            self.headings.append(tag)


def test_a_long_table_is_cut_says_so_and_shows_the_undefended_and_the_fronts_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.page.html.MOST_ROWS", 12)
    rows = demo_records()
    page = write_report(write_run(tmp_path, manifest(), rows)).read_text()
    table = page[page.index('id="trials"') : page.index('id="failures"')]
    assert "The table shows the first 12 of 40 rows" in table
    assert "trials.csv" in table
    shown = re.findall(r"<td><code>(\w{10})</code></td></tr>", table)
    assert len(shown) == 12
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    members = {row["trial"][:10] for front in plain["fronts"] for row in front["members"]}
    undefended = rows[0]["trial"][:10]
    first = {undefended, *members}
    assert set(shown) <= first if len(first) >= 12 else first <= set(shown)
    assert len((tmp_path / "report" / "trials.csv").read_text().splitlines()) == 41


def test_the_page_says_who_proposed_the_trials(tmp_path: Path) -> None:
    words = "tpe up to 500 finished trials, then nsga2"
    page = write_report(write_run(tmp_path, manifest(sampler=words), demo_records())).read_text()
    assert f"Sampler: {words}." in page


def test_of_intervals_that_overlap_the_probable_front_is_shown_first(tmp_path: Path) -> None:
    # Each trial is less accurate than the one before, and leaks less by a figure within noise: by
    # the values all are on the front; in a draw number k is if none of k others happens to leak
    # less.
    rows = [
        record(
            f"trial{place:05d}",
            [fgsm(round(0.01 * (place + 1), 2))],
            metrics={
                "clean_accuracy": share(0.95 - 0.03 * place, 20_000),
                "robust_accuracy": share(0.5 - 0.03 * place, 20_000),
                "membership_auc": {
                    "value": 0.52 - 0.001 * place, "low": 0.45 - 0.001 * place,
                    "high": 0.59 - 0.001 * place, "n": 300,
                },
            },
        )
        for place in range(12)
    ]  # fmt: skip
    text = write_report(write_run(tmp_path, manifest(), rows)).read_text(encoding="utf-8")
    front = json.loads((tmp_path / "report" / "report.json").read_text())["fronts"][0]
    assert len(front["members"]) == 12
    shares = {row["trial"]: row["share"] for row in front["members"]}
    assert set(front["probable"]) == {trial for trial, each in shares.items() if each >= 0.5}
    assert 1 <= len(front["probable"]) <= 3 and front["probable"][0] == "trial00000"
    section = text[text.index('aria-labelledby="fronts"') :]
    first, _, rest = section.partition("<details")
    assert re.findall(r"<code>(trial\w{5})</code>", first) == [
        trial[:10] for trial in front["probable"]
    ]
    plain = rest.partition("</details>")[0]
    assert "The front by the values alone: 12 trials" in plain
    assert len(re.findall(r"<code>trial\w{5}</code>", plain)) == 12


def test_a_member_of_the_search_s_front_bears_the_verdict_of_its_audit(tmp_path: Path) -> None:
    text = write_report(write_demo_audit(tmp_path)).read_text(encoding="utf-8")
    fronts = text[text.index('aria-labelledby="fronts"') :].partition("</section>")[0]
    verdicts = set(re.findall(r'class="verdict [a-z-]+">(audit: [a-z ]+)<', fronts))
    assert {"audit: unverified", "audit: masking suspected"} <= verdicts
    assert "the verdict stands beside it" in fronts
