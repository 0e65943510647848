"""The report's page in a browser: what a reader asks for changes all that it shows."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from results import load, write_report
from tests.results.audits import write_demo_audit
from tests.results.browser import DESKTOP, PHONE, Opened, chromium, opened
from tests.results.run_folders import (
    EVIL,
    attacked_records,
    demo_records,
    fgsm,
    manifest,
    record,
    temperature,
    write_run,
)

HOSTILE = '</script><img src=x onerror="window.broken=1"><b>bold</b> <!-- \' " &amp; {{ 7 * 7 }}'
STEP_MS = 100.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of an audited run of six trials."""
    return write_report(write_demo_audit(tmp_path_factory.mktemp("audited")))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a run of 40 trials that nobody audited."""
    folder = tmp_path_factory.mktemp("searched")
    return write_report(write_run(folder, manifest(), demo_records()), running=True)


@pytest.fixture
def page(browser: Browser, audited: Path) -> Iterator[Opened]:
    with opened(browser, audited) as found:
        yield found


def test_the_page_opens_from_disk_without_an_error_and_asks_nothing_of_the_network(
    browser: Browser, audited: Path
) -> None:
    for width, dark in ((DESKTOP, False), (PHONE, True)):
        with opened(browser, audited, width=width, dark=dark) as found:
            for picture in found.page.locator("figure img").all():
                picture.scroll_into_view_if_needed()
            found.page.wait_for_function("[...document.images].every((image) => image.complete)")
            assert found.complaints == []
            assert found.requests
            assert all(address.startswith("file:") for address in found.requests)
            sizes = "[...document.images].map((image) => image.naturalWidth)"
            assert all(found.page.evaluate(sizes))


def test_a_requirement_set_with_the_slider_changes_table_fronts_and_recommendation(
    page: Opened,
) -> None:
    before, advice, marks = page.trials(), page.advice(), page.bright_marks()
    assert len(before) == marks == 6
    slider = page.slider("backdoor_success_rate")
    slider.focus()
    for _ in range(70):
        page.page.keyboard.press("ArrowLeft")
    page.settle()
    threshold = float(slider.input_value())
    assert 0.1 < threshold < 0.5
    assert set(page.trials()) == {"smooth00", "masked00", "partial0"}
    assert page.bright_marks() == 3
    assert "3 of 6 trials meet all that is asked, 1 of them verified" in page.texts("#count")[0]
    assert "Recommended where nothing is required" in advice
    words = page.advice()
    assert "Recommended under these requirements: fgsm_adversarial_training(eps=0.06" in words
    assert f"backdoor_success_rate<={threshold:g} excludes 3 of 4 verified" in words
    assert f"select runs/demo --require 'backdoor_success_rate<={threshold:g}'" in words
    assert "at most" in str(slider.get_attribute("aria-valuetext"))
    page.page.click("#clear")
    page.settle()
    assert (page.trials(), page.advice(), page.bright_marks()) == (before, advice, marks)


def test_what_nothing_meets_is_said_with_the_nearest_miss(page: Opened) -> None:
    page.require("clean_accuracy", 0.999)
    assert page.trials() == []
    assert "Nothing that is verified meets these requirements." in page.advice()
    assert "The nearest is fgsm_adversarial_training" in page.advice()
    assert "clean_accuracy>=0.999 excludes 4 of 4 verified" in page.advice()
    assert page.page.locator("#none-match").is_visible()


def test_where_only_the_undefended_model_fits_it_is_said_and_not_recommended(page: Opened) -> None:
    page.require("clean_accuracy", 0.925)
    assert "Only the undefended model meets these requirements" in page.advice()
    assert "plain000" in page.trials()


def test_another_metric_can_be_required_ranked_by_and_taken_away_again(page: Opened) -> None:
    page.page.select_option("#goal", "robust_accuracy")
    page.settle()
    assert "fgsm_adversarial_training(eps=0.2" in page.texts("#advice .headline")[0]
    page.page.select_option("#add-metric", "latency_ms_p95")
    page.require("latency_ms_p95", 2.6)
    head = page.texts("#matches-head th")
    assert any("latency_ms_p95" in name for name in head)
    assert page.trials() == []
    page.require("latency_ms_p95", 2.8)
    assert len(page.trials()) == 6
    page.page.click('.requirement[data-metric="latency_ms_p95"] button')
    page.settle()
    assert len(page.trials()) == 6
    assert not page.page.locator('.requirement[data-metric="latency_ms_p95"]').count()


def test_a_range_brushed_on_a_parallel_axis_filters_table_and_fronts(page: Opened) -> None:
    strip = page.page.locator('.strip[data-metric="robust_accuracy"]')
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    page.page.mouse.move(middle, box["y"] + 2)
    page.page.mouse.down()
    page.page.mouse.move(middle, box["y"] + 0.5 * box["height"], steps=4)
    page.page.mouse.up()
    page.settle()
    assert set(page.trials()) == {"masked00", "strong00", "smooth00"}
    assert page.bright_marks() == 3
    page.page.click("#clear-brushes")
    page.settle()
    assert len(page.trials()) == 6


def test_a_trial_is_pinned_by_the_mouse_and_by_the_keyboard(page: Opened) -> None:
    chart = page.page.locator("#fronts-charts .chart").first
    chart.scroll_into_view_if_needed()
    mark = chart.locator(".scatterlayer .trace .point").first.bounding_box()
    assert mark is not None
    page.page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.page.wait_for_selector("#pins article")
    first = page.page.locator("#pins article").get_attribute("data-trial")
    assert page.page.locator(f'tr[data-trial="{first}"] [aria-pressed=true]').count() == 1
    other = next(trial for trial in page.trials() if trial != first)
    page.page.locator(f'tr[data-trial="{other}"] button').focus()
    page.page.keyboard.press("Enter")
    pinned = page.page.locator("#pins article")
    assert [card.get_attribute("data-trial") for card in pinned.all()] == [first, other]
    assert "clean_accuracy" in pinned.last.inner_text()
    page.page.keyboard.press("Space")
    assert pinned.count() == 1
    assert page.page.evaluate("document.activeElement.className") == "pin"
    page.page.locator("#pins article button").click()
    assert page.page.locator("#pins-empty").is_visible()


def test_hovering_over_a_mark_shows_the_configuration_and_its_intervals(page: Opened) -> None:
    chart = page.page.locator("#fronts-charts .chart").first
    chart.scroll_into_view_if_needed()
    mark = chart.locator(".scatterlayer .trace .point").last.bounding_box()
    assert mark is not None
    page.page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.page.wait_for_selector("#fronts-charts .hoverlayer .hovertext")
    words = page.page.locator("#fronts-charts .hoverlayer").first.text_content() or ""
    assert "undefended" in words and "clean_accuracy 0.970 [" in words


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_never_scrolls_sideways(browser: Browser, audited: Path, dark: bool) -> None:
    with opened(browser, audited, width=PHONE, dark=dark) as found:
        for trial in found.trials()[:2]:
            found.page.locator(f'tr[data-trial="{trial}"] button').click()
        found.page.select_option("#add-metric", "latency_ms_p95")
        found.require("clean_accuracy", 0.5)
        assert found.page.evaluate("document.documentElement.scrollWidth") == PHONE
        assert found.complaints == []


def test_dark_and_light_have_their_own_colours_in_the_charts_too(
    browser: Browser, audited: Path
) -> None:
    looks = []
    for dark in (False, True):
        with opened(browser, audited, dark=dark) as found:
            title = found.page.locator("#fronts-charts .xtitle").first
            looks.append(
                (
                    found.page.evaluate("getComputedStyle(document.body).backgroundColor"),
                    title.evaluate("(node) => getComputedStyle(node).fill"),
                )
            )
    assert looks[0][0] == "rgb(255, 255, 255)" and looks[0][1] == "rgb(28, 32, 36)"
    assert looks[1][0] == "rgb(20, 23, 26)" and looks[1][1] == "rgb(230, 232, 235)"


def test_everything_is_reached_by_the_keyboard_with_a_visible_focus(page: Opened) -> None:
    seen = []
    for _ in range(60):
        page.page.keyboard.press("Tab")
        seen.append(page.page.evaluate(_FOCUSED))
        if seen[-1]["classes"] == "pin":
            break
    assert seen[0]["classes"] == "skip"
    assert {"range", "number", "select-one"} <= {each["type"] for each in seen}
    assert seen[-1]["classes"] == "pin"
    assert all(each["outline"] for each in seen)
    unnamed = page.page.evaluate(_UNNAMED)
    assert unnamed == []


_FOCUSED = """() => {
  const found = document.activeElement;
  const outline = getComputedStyle(found).outlineStyle !== "none";
  return { classes: found.className, type: found.type ?? "", outline };
}"""
_UNNAMED = """() => [...document.querySelectorAll("input, select, button")].filter(
  (each) => !each.labels?.length && !each.ariaLabel && !each.textContent.trim()
).map((each) => each.outerHTML)"""


def test_strings_of_users_stay_text(browser: Browser, tmp_path: Path) -> None:
    rows = attacked_records(HOSTILE)
    rows[1]["error"], rows[1]["status"] = HOSTILE, "failed"
    rows[2]["spec"]["stack"] = [{"name": HOSTILE, "way": HOSTILE}]
    told = manifest(run=HOSTILE, description=HOSTILE, data_title=HOSTILE, command=f"go '{EVIL}'",
                    space={"name": HOSTILE}, sampler=HOSTILE)  # fmt: skip
    file = write_report(write_run(tmp_path, told, rows), running=True)
    with opened(browser, file) as found:
        found.page.locator(f'tr[data-trial="{rows[2]["trial"]}"] button').click()
        found.page.locator("#fronts-charts .scatterlayer .point").last.hover(force=True)
        assert found.page.evaluate("window.broken") is None
        assert found.complaints == []
        assert not found.page.locator("img[src=x], b:has-text('bold')").count()
        assert HOSTILE in found.page.locator("h1").inner_text()
        assert HOSTILE in (found.page.locator("#pins h4").text_content() or "")
        assert "49" not in found.page.locator("h1").inner_text()


def test_without_javascript_tables_and_pictures_stay(browser: Browser, audited: Path) -> None:
    with opened(browser, audited, javascript=False) as found:
        assert not found.page.locator("#choose-part").is_visible()
        assert "Recommended where nothing is required" in found.advice()
        assert found.page.locator("section[aria-labelledby=trials] tbody tr").count() == 6
        assert found.page.locator("figure img").count() >= 3


def test_the_charts_alone_are_missing_where_the_library_is(
    browser: Browser, audited: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "index.html"
    alone.write_bytes(audited.read_bytes())
    with opened(browser, alone) as found:
        found.require("clean_accuracy", 0.9)
        assert 0 < len(found.trials()) < 6
        assert "plotly.min.js" in found.page.locator("#fronts-charts").inner_text()


@pytest.mark.slow
def test_a_step_of_a_slider_stays_quick_with_a_thousand_trials(
    browser: Browser, tmp_path: Path
) -> None:
    file = write_report(write_run(tmp_path, manifest(trials=1_000), _many(1_000)), running=True)
    with opened(browser, file) as found:
        found.page.locator("#fronts-charts").scroll_into_view_if_needed()
        session = found.page.context.new_cdp_session(found.page)
        session.send("Performance.enable")
        slider = found.slider("robust_accuracy")
        slider.focus()
        found.page.wait_for_timeout(300)
        costs = []
        for _ in range(8):
            before = _scripting(session.send("Performance.getMetrics"))
            for _ in range(5):
                found.page.keyboard.press("ArrowRight")
            found.settle()
            found.page.wait_for_timeout(200)
            costs.append(_scripting(session.send("Performance.getMetrics")) - before)
        shown = int(found.texts("#count")[0].partition(" ")[0])
        assert 0 < shown < 1_000
        assert found.bright_marks() == shown
        # The least of some: other processes of the machine make each of them longer.
        assert 1_000 * min(costs) / 5 <= STEP_MS, costs


def test_of_very_many_trials_the_page_takes_a_part_and_says_so(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.page.data.MOST_TRIALS", 30)
    folder = write_run(tmp_path, manifest(), demo_records())
    with opened(browser, write_report(folder, running=True)) as found:
        assert "This section holds 30 of 36 trials" in found.page.inner_text("#choose-part")
        run = load(folder)
        shown = set(json.loads(str(found.page.text_content("#data")))["values"])
        assert {objective.metric for objective in run.objectives} <= shown
        known = json.loads(str(found.page.text_content("#data")))["trials"]
        front = {row["id"] for row in known if row.get("front")}
        members = json.loads((tmp_path / "report" / "report.json").read_text())["fronts"][0]
        assert front == {row["trial"] for row in members["members"]}
        assert any(row.get("undefended") for row in known)


def test_a_running_page_loads_itself_anew_until_it_is_used(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.page.html.RELOAD_SECONDS", 1)
    folder = write_run(tmp_path, manifest(), demo_records()[:12])
    with opened(browser, write_report(folder, running=True)) as found:
        assert "Running: 12 of 40" in found.page.inner_text("#running")
        write_run(tmp_path, manifest(), demo_records()[:14])
        write_report(folder, running=True)
        found.page.wait_for_function("document.body.innerText.includes('Running: 14 of 40')")
        found.page.wait_for_selector("#matches-body tr")
        found.page.keyboard.press("Tab")
        write_report(write_run(tmp_path, manifest(), demo_records()), running=True)
        found.page.wait_for_timeout(1_500)
        assert "Running: 14 of 40" in found.page.inner_text("#running")
        found.page.click("#reload")
        found.page.wait_for_function("document.body.innerText.includes('Running: 40 of 40')")


def test_an_ended_run_has_nothing_of_it(audited: Path, searched: Path) -> None:
    assert 'id="running"' in searched.read_text()
    assert 'id="running"' not in audited.read_text()


def test_a_run_without_a_trial_still_opens(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, write_report(write_run(tmp_path, manifest(), []))) as found:
        assert found.complaints == []
        assert "Nothing is recommended: no candidate was audited." in found.advice()
        assert "python -m orchestrator audit runs/demo" in found.advice()


def _scripting(answer: dict[str, Any]) -> float:
    """Return the seconds that the page's code has run."""
    found = {row["name"]: row["value"] for row in answer["metrics"]}
    return float(found["ScriptDuration"])


def _many(count: int) -> list[dict[str, Any]]:
    draw = random.Random(3)
    rows = [record("plain0000000")]
    for place in range(1, count):
        strength = draw.random()
        stack = [fgsm(round(0.2 * strength, 4)), temperature(round(draw.uniform(1, 5), 3))]
        scores = {
            "clean_accuracy": round(0.97 - 0.1 * strength + draw.uniform(-0.05, 0.02), 4),
            "robust_accuracy": round(0.25 + 0.5 * strength + draw.uniform(-0.2, 0.2), 4),
            "membership_auc": round(0.6 - draw.uniform(0, 0.1), 4),
        }
        rows.append(record(f"{place:012x}", stack, metrics=scores))
    return rows
