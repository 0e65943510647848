"""What a report recommends: verified defenses alone, and what the audit struck off by name."""

import json
from pathlib import Path

from results import load, write_report
from results.audit.audit import audited
from results.choosing.recommendation import Recommendation, recommendation, run_address
from results.records.values import value_text
from results.sections.matrix import matrix
from tests.results.audits import Candidate, demo_candidates, write_audited, write_demo_audit
from tests.results.run_folders import demo_records, manifest, write_run


def _advice(folder: Path) -> Recommendation:
    run = load(folder)
    return recommendation(run, matrix(run, audited(run)))


def test_without_an_audit_nothing_is_recommended_and_the_command_is_named(tmp_path: Path) -> None:
    advice = _advice(write_run(tmp_path, manifest(), demo_records()))
    assert advice.headline == "Nothing is recommended: no candidate was audited."
    assert advice.chosen is None
    assert advice.command == "python -m orchestrator audit runs/demo"


def test_a_verified_defense_is_recommended_with_audited_figures_and_differences(
    tmp_path: Path,
) -> None:
    advice = _advice(write_demo_audit(tmp_path))
    assert advice.chosen is not None and advice.chosen.verdict == "verified"
    assert advice.headline == f"Recommended where nothing is required: {advice.chosen.label}."
    value = advice.chosen.values["robust_accuracy"]
    words = " ".join(advice.sentences)
    assert f"robust_accuracy {value_text(value)} (n = {value.n:,})" in words
    assert "Against the undefended model after the same audit: clean_accuracy -0.0" in words
    assert "the undefended model" in words


def test_the_masked_leader_of_the_search_is_struck_off_by_name(tmp_path: Path) -> None:
    advice = _advice(write_demo_audit(tmp_path))
    words = " ".join(advice.sentences)
    assert "Struck off by the audit: temperature(T=5). Masking suspected: a score-only" in words
    assert "Not verified: label_smoothing(alpha=0.2), for only 2 of 3 seeds" in words
    assert "temperature" not in advice.headline


def test_where_none_is_verified_nothing_is_recommended(tmp_path: Path) -> None:
    masked = [each for each in demo_candidates() if each.masking]
    advice = _advice(write_audited(tmp_path, masked))
    assert advice.headline == "Nothing is recommended: none of 1 audited candidate is verified."
    assert advice.chosen is None


def test_the_undefended_model_alone_is_not_recommended(tmp_path: Path) -> None:
    plain = [each for each in demo_candidates() if not each.stack]
    advice = _advice(write_audited(tmp_path, plain))
    assert advice.headline == "Nothing is recommended: no audited defense is verified."
    assert advice.sentences[0].startswith("Only the undefended model is verified")
    assert advice.chosen is None


def test_the_command_finds_the_run_where_launch_put_it(tmp_path: Path) -> None:
    for command, address in (
        ("python -m orchestrator launch --space full", "runs/demo"),
        ("python -m orchestrator launch --space full --runs /far/away/", "/far/away/demo"),
        ("python -m orchestrator launch --runs='my runs' --space full", "my runs/demo"),
    ):
        run = load(write_run(tmp_path, manifest(command=command), []))
        assert run_address(run) == address
    advice = recommendation(run, None)
    assert advice.command == "python -m orchestrator audit 'my runs/demo'"


def test_the_json_has_verdicts_audit_and_selection(tmp_path: Path) -> None:
    page = write_report(write_demo_audit(tmp_path), running=True)
    assert "and of the audit <strong>18 of 40</strong>" in page.read_text()
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    assert plain["recommendation"]["trial"] == plain["selection"]["knee"]
    verdicts = {row["trial"]: row["verdict"] for row in plain["verdicts"]}
    assert verdicts["masked00"] == "masking suspected"
    assert verdicts["partial0"] == "unverified"
    picked, references = (set(plain["selection"][name]) for name in ("picks", "references"))
    assert picked | references == {t for t, v in verdicts.items() if v == "verified"}
    assert references == {"plain000"} and not picked & references
    row = next(row for row in plain["audit"] if row["trial"] == "mild0000")
    assert row["seeds"] == row["planned"] == 3
    assert row["metrics"]["clean_accuracy"]["seeds"] == 3
    assert row["metrics"]["latency_ms_p95"]["seeds"] == 1


def test_candidates_that_share_everything_are_all_named(tmp_path: Path) -> None:
    twins = [
        Candidate(trial=f"twin{place}", stack=each.stack, search=each.search, audit=each.audit)
        for place, each in enumerate(demo_candidates()[1:3])
    ]
    advice = _advice(write_audited(tmp_path, twins))
    assert advice.chosen is not None
    assert any("Also verified" in sentence for sentence in advice.sentences)
