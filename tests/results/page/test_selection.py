"""The page's own selection, in a browser, against the one of the command line."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

import results.page.html
from results import load, write_report
from results.choosing.requirements import Goal, Requirement
from results.choosing.selection import select
from tests.results.audits import write_demo_audit
from tests.results.browser import chromium, opened

TEMPLATES = Path(results.page.html.__file__).parent / "templates"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def test_the_page_and_the_command_select_alike(browser: Browser, tmp_path: Path) -> None:
    audited = write_report(write_demo_audit(tmp_path))
    run = load(tmp_path)
    draw = random.Random(7)
    names = ["clean_accuracy", "robust_accuracy", "membership_auc", "backdoor_success_rate",
             "latency_ms_p95", "certified_accuracy"]  # fmt: skip
    source = (TEMPLATES / "scripts" / "selection.js").read_text()
    empty = only = 0
    with opened(browser, audited) as found:
        candidates = json.loads(str(found.page.text_content("#data")))["candidates"]
        for drawn in range(50):
            requirements = [
                Requirement(metric=name, op=draw.choice([">=", "<=", ">", "<"]),
                            threshold=round(draw.uniform(0.05, 0.95), 3))
                for name in draw.sample(names[:5], draw.randrange(3))
            ]  # fmt: skip
            if drawn == 0:  # what the undefended model alone meets
                requirements = [Requirement(metric="clean_accuracy", op=">=", threshold=0.925)]
            goals = [Goal(metric=name, maximized=draw.random() < 0.5)
                     for name in draw.sample(names, draw.randrange(1, 4))]  # fmt: skip
            ours = select(run, requirements, goals)
            theirs = found.page.evaluate(
                f"([c, r, g]) => {{ {source}; const found = select(c, r, g); return {{"
                "picks: found.picks.map((each) => each.id), only: found.onlyUndefended, "
                "excluded: found.excluded.map((each) => each.count), "
                "nearest: found.nearest && found.nearest.candidate.id}; }",
                [candidates, [_plain(each) for each in requirements],
                 [{"metric": g.metric, "maximized": g.maximized} for g in goals]],
            )  # fmt: skip
            assert theirs == {
                "picks": [pick.trial for pick in ours.picks],
                "only": ours.only_undefended,
                "excluded": [each.count for each in ours.excluded],
                "nearest": ours.nearest.candidate.trial if ours.nearest else None,
            }
            empty += not ours.picks
            only += ours.only_undefended
    assert 5 < empty < 45 and only > 0


def _plain(requirement: Requirement) -> dict[str, Any]:
    return {"metric": requirement.metric, "op": requirement.op, "threshold": requirement.threshold}
