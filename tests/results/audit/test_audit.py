"""Verdicts of an audit, the optimism of the search, and certificates that attacks refute."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results import ResultsError, write_report
from results.audit.audit import audited
from results.audit.certificate_check import answer_margin, check_certificates
from results.audit.coverage import ATTACKS
from results.audit.optimism import optimism
from results.records.record import Record
from results.records.run import load
from tests.results.audits import (
    AUDIT_METRICS,
    POINTS,
    Candidate,
    audit_records,
    demo_candidates,
    scores,
    write_audited,
    write_demo_audit,
)
from tests.results.run_folders import (
    Json,
    evasion_notes,
    fgsm,
    manifest,
    record,
    share,
    sight_notes,
    write_run,
)
from trainables.threats import THREATS


def test_without_an_audit_nothing_is_audited(tmp_path: Path) -> None:
    run = load(write_run(tmp_path, manifest(), [record("a")]))
    assert run.audit is None
    assert audited(run) == ()
    assert optimism(run) == ()


def test_each_candidate_gets_its_verdict_and_what_it_rests_on(tmp_path: Path) -> None:
    found = {each.trial: each for each in audited(load(write_demo_audit(tmp_path)))}
    verdicts = {trial: each.verdict for trial, each in found.items()}
    assert verdicts == {
        "plain000": "verified", "mild0000": "verified", "smooth00": "verified",
        "strong00": "verified", "masked00": "masking suspected", "partial0": "unverified",
    }  # fmt: skip
    assert "a score-only search breaks points" in found["masked00"].because
    assert found["partial0"].because == (
        "only 2 of 3 seeds of its audit count (failed: out of memory)"
    )
    assert found["plain000"].undefended and not found["mild0000"].undefended
    assert found["smooth00"].why == "touches the front"


def test_a_candidate_that_no_attack_knew_or_nobody_checked_is_unverified(tmp_path: Path) -> None:
    best = scores(0.9, 0.5, 0.5, 0.1)
    unchecked = {"notes": {"evasion": {"adaptive": True}}}
    folder = write_audited(
        tmp_path,
        [
            Candidate(trial="blind", stack=[fgsm(0.1)], search=best, audit=best, adaptive=False),
            Candidate(trial="hasty", stack=[fgsm(0.2)], search=best, audit=best, changes=unchecked),
            Candidate(
                trial="spared", stack=[fgsm(0.3)], search=best, audit=best, changes={"notes": {}}
            ),
        ],
    )
    blind, hasty, spared = audited(load(folder))
    assert blind.verdict == hasty.verdict == spared.verdict == "unverified"
    assert spared.because == "its audit lacks what the run's threats demand: evasion"
    assert "no attack knew the whole defense: the detector gives no reject_margin" in blind.because
    assert hasty.because == "its audit looked for no sign of masking"


def _of_threats(folder: Path, threats: tuple[str, ...], candidates: int = 1) -> Path:
    """Write a run whose audit measured these threats alone."""
    figures = scores(0.9, 0.5, 0.6, 0.1)
    rows = [
        Candidate(trial=f"trial{place}", stack=[fgsm(0.1 + place)], search=figures, audit=figures)
        for place in range(candidates)
    ]
    folder = write_audited(folder, rows)
    for file in (folder / "audit" / "records").glob("*.json"):
        plain = json.loads(file.read_text())
        plain["spec"]["threats"] = [{"name": name} for name in threats]
        if "evasion" not in threats:
            plain["notes"] = {}
        plain["metrics"] = {"clean_accuracy": share(0.9)} | {
            metric: share(0.4) for name, metric in ATTACKS.items() if name in threats
        }
        file.write_text(json.dumps(plain))
    return folder


@pytest.mark.parametrize(
    ("threats", "words"),
    [
        (
            ("membership", "inversion"),
            "3 seeds; attacked by: membership, inversion; not attacked by: evasion, backdoor",
        ),
        (
            ("backdoor",),
            "3 seeds; attacked by: backdoor; not attacked by: evasion, membership, inversion",
        ),
        (
            ("evasion", "backdoor", "membership", "inversion"),
            "3 seeds; no sign of masking (a mask of 10 % of the points would be seen with "
            "probability 0.94 (n = 100)); attacked adaptively; attacked by: evasion, backdoor, "
            "membership, inversion",
        ),
    ],
)
def test_what_a_verdict_needs_follows_from_the_threats_and_it_says_what_is_not_covered(
    tmp_path: Path, threats: tuple[str, ...], words: str
) -> None:
    (found,) = audited(load(_of_threats(tmp_path, threats)))
    assert (found.verdict, found.because) == ("verified", words)
    assert found.uncovered == tuple(name for name in ATTACKS if name not in threats)
    assert ("not attacked by" in found.verdict_line) is bool(found.uncovered)


@pytest.mark.parametrize(
    ("sight", "verdict"),
    [
        (sight_notes(0.72, 48), "unverified"),
        (sight_notes(0.8, 54), "verified"),
        (None, "verified"),  # recorded before a check said it
    ],
)
def test_an_audit_that_would_not_see_a_mask_verifies_nothing(
    sight: Json | None, verdict: str, tmp_path: Path
) -> None:
    folder = _of_threats(tmp_path, ("evasion",))
    for file in (folder / "audit" / "records").glob("*.json"):
        plain = json.loads(file.read_text())
        plain["notes"]["evasion"]["masking"]["sight"] = sight
        if "seed0" not in file.name:  # a later seed looks for fewer signs
            plain["notes"]["evasion"]["masking"]["sight"] = sight_notes(0.99, 150)
        if sight is None:
            del plain["notes"]["evasion"]["masking"]["sight"]
        file.write_text(json.dumps(plain))
    (found,) = audited(load(folder))
    assert found.verdict == verdict
    if verdict == "unverified":
        assert found.because == (
            "no sign of masking shows, but a mask of 10 % of the points would be seen with "
            "probability 0.72 (n = 48), and a verdict needs 0.8: attack 54 points or more"
        )
    else:
        assert found.because.startswith("3 seeds; no sign of masking")


def test_an_audit_that_attacks_nothing_verifies_nothing(tmp_path: Path) -> None:
    (found,) = audited(load(_of_threats(tmp_path, ("cost",))))
    assert found.verdict == "unverified"
    assert found.because == (
        "its audit attacked nothing; not attacked by: evasion, backdoor, membership, inversion"
    )


def test_a_threat_that_the_data_rules_out_is_said_and_one_that_a_candidate_escapes_is_missed(
    tmp_path: Path,
) -> None:
    folder = _of_threats(tmp_path, ("membership", "backdoor"), candidates=2)
    for place, verdicts in ((1, ["verified", "unverified"]), (0, ["verified", "verified"])):
        for file in (folder / "audit" / "records").glob(f"audit{place}seed*.json"):
            plain = json.loads(file.read_text())
            plain["metrics"]["backdoor_success_rate"] = {"value": None, "reason": "6 of 7 rows"}
            file.write_text(json.dumps(plain))
        found = audited(load(folder))
        assert [each.verdict for each in found] == verdicts
        assert "backdoor (6 of 7 rows)" in found[1].because
        assert "backdoor" in found[1].uncovered
    assert "not attacked by: evasion, backdoor (6 of 7 rows), inversion" in found[0].because


def test_the_attacks_of_a_verdict_are_threats_with_the_metrics_that_they_measure() -> None:
    for name, metric in ATTACKS.items():
        assert metric in THREATS[name]().metric_names()


def test_masking_that_one_seed_shows_suffices(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    file = folder / "audit" / "records" / "audit1seed2.json"
    plain = json.loads(file.read_text())
    plain["notes"] |= evasion_notes("points resist although the ball holds every image")
    file.write_text(json.dumps(plain))
    found = audited(load(folder))[1]
    assert (found.verdict, found.because) == (
        "masking suspected", "points resist although the ball holds every image",
    )  # fmt: skip


def test_a_sign_that_strikes_nothing_leaves_a_candidate_verified(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    for file in (folder / "audit" / "records").glob("audit1seed*.json"):
        plain = json.loads(file.read_text())
        plain["notes"] |= evasion_notes("a margin loss breaks more")
        plain["notes"]["evasion"]["masking"]["strikes"] = False
        file.write_text(json.dumps(plain))
    assert audited(load(folder))[1].verdict == "verified"


def test_values_are_means_over_seeds_and_say_how_many(tmp_path: Path) -> None:
    candidate = audited(load(write_demo_audit(tmp_path)))[1]
    clean = candidate.values["clean_accuracy"]
    assert clean.value == pytest.approx(0.94, abs=0.002)
    assert clean.n == POINTS
    # Three seeds on the same points tell more than one seed, but far less than three test sets.
    one_seed = candidate.records[0].value("clean_accuracy")
    assert one_seed is not None
    widths = [each.high - each.low for each in (clean, one_seed)]
    assert 0.6 < widths[0] / widths[1] < 1.2
    assert candidate.seeds["clean_accuracy"] == 3
    assert candidate.seeds["latency_ms_p95"] == 1


def test_a_metric_that_no_seed_has_is_missing_with_its_reason(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    for file in (folder / "audit" / "records").glob("audit1seed*.json"):
        plain = json.loads(file.read_text())
        plain["metrics"]["detection_auroc"] = {"value": None, "reason": "nothing rejects"}
        file.write_text(json.dumps(plain))
    candidate = audited(load(folder))[1]
    assert candidate.missing == {"detection_auroc": "nothing rejects"}
    assert "detection_auroc" not in candidate.values


def test_membership_counts_the_seeds_that_faced_the_most_attacks(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    file = folder / "audit" / "records" / "audit1seed0.json"
    plain = json.loads(file.read_text())
    plain["metrics"] |= {"membership_auc": share(0.7), "membership_auc_lira_online": share(0.7)}
    file.write_text(json.dumps(plain))
    candidate = audited(load(folder))[1]
    assert candidate.values["membership_auc"].value == 0.7
    assert candidate.seeds["membership_auc"] == 1
    assert candidate.seeds["clean_accuracy"] == 3


def test_a_candidate_without_a_trial_in_the_search_stands_for_itself(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    (folder / "records" / "plain000.json").unlink()
    plan = json.loads((folder / "audit" / "manifest.json").read_text())
    plan["audit"]["candidates"][0]["search_trial"] = None
    (folder / "audit" / "manifest.json").write_text(json.dumps(plan))
    candidate = audited(load(folder))[0]
    assert candidate.search is None
    assert candidate.trial == "audit0seed0"
    assert candidate.undefended


def test_a_verdict_names_the_undefended_model_in_words(tmp_path: Path) -> None:
    undefended, defended = audited(load(write_demo_audit(tmp_path)))[:2]
    assert undefended.verdict_line.startswith(f"{undefended.verdict}: the undefended model")
    assert defended.verdict_line.startswith(f"{defended.verdict}: {defended.label}")


def test_an_audit_that_does_not_say_what_it_audited_is_refused(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    write_run(folder / "audit", manifest(), [])
    with pytest.raises(ResultsError, match=r"lacks audit\.candidates"):
        audited(load(folder))


def test_outcomes_that_are_neither_0_nor_1_make_a_record_unreadable(tmp_path: Path) -> None:
    bad = record("a", notes={"outcomes": {"points": 3, "clean_accuracy": "01x"}})
    run = load(write_run(tmp_path, manifest(), [bad]))
    assert run.corrupt[0][0] == "a.json"
    assert "outcomes of clean_accuracy" in run.corrupt[0][1]


def test_optimism_is_positive_where_the_search_looks_better(tmp_path: Path) -> None:
    run = load(write_demo_audit(tmp_path))
    found = {each.objective.metric: each for each in optimism(run)}
    robust, backdoor = found["robust_accuracy"], found["backdoor_success_rate"]
    strong = next(gap for gap in robust.gaps if gap.candidate.trial == "strong00")
    assert strong.optimism.value == pytest.approx(0.04, abs=0.002)
    assert strong.optimism.low < 0 < strong.optimism.high
    # Less is better there: the audit's higher rate says that the search was too kind.
    mild = next(gap for gap in backdoor.gaps if gap.candidate.trial == "mild0000")
    assert mild.optimism.value == pytest.approx(0.02)
    assert robust.mean is not None
    assert robust.mean.value == pytest.approx(
        sum(gap.optimism.value for gap in robust.gaps) / len(robust.gaps)
    )
    assert all(not gap.candidate.undefended for gap in robust.gaps)
    assert [gap.candidate.trial for gap in robust.undefended] == ["plain000"]


def certified(
    radii: list[float], robust: int, *, failure: float = 0.001, effort: str = "screen"
) -> Json:
    """Return a record that certifies radii of right classes, and is robust on some points in L2."""
    notes: Json = evasion_notes(radius_l2=0.5)
    notes["certification"] = {
        "norm": "l2", "points": len(radii), "certifies": True, "failure_probability": failure,
        "radii": radii, "right": [True] * len(radii),
    }  # fmt: skip
    metrics: dict[str, Any] = {"robust_accuracy_l2": share(robust / len(radii), len(radii))}
    return record("proof", [fgsm(0.1)], metrics=metrics, notes=notes, spec={"effort": effort})


def _run(folder: Path, row: Json) -> Path:
    return write_run(folder, manifest(metrics=AUDIT_METRICS), [row])


def test_certificates_that_no_attack_refutes_pass(tmp_path: Path) -> None:
    check_certificates(load(_run(tmp_path, certified([0.6] * 50 + [0.1] * 50, robust=50))))


def test_as_many_refuted_points_as_certificates_may_fail_pass(tmp_path: Path) -> None:
    row = certified([0.6] * 100, robust=98, failure=0.001)
    check_certificates(load(_run(tmp_path, row)))


@pytest.mark.parametrize("place", ["search", "audit"])
def test_a_certificate_above_the_attack_stops_report_and_check(tmp_path: Path, place: str) -> None:
    folder = write_demo_audit(tmp_path / "run")
    row = certified([0.6] * 70 + [0.1] * 30, robust=50)
    records = folder / "records" if place == "search" else folder / "audit" / "records"
    (records / "proof.json").write_text(json.dumps(row))
    with pytest.raises(ResultsError) as caught:
        check_certificates(load(folder))
    words = str(caught.value)
    assert "trial proof" in words and "L2 radius 0.500" in words
    assert "0.700" in words and "0.500 [" in words and "the same 100 points" in words
    with pytest.raises(ResultsError, match="trial proof"):
        write_report(folder)
    assert not (folder / "report" / "index.html").exists()


def _by_metrics(row: Json) -> None:
    """State the same without notes of the points: by the metric at a larger radius alone."""
    del row["notes"]["certification"]
    row["metrics"]["certified_accuracy_at_0.5"] = share(0.7, 100)


def _by_curve(row: Json) -> None:
    """State the same by the curve over the size of the attack."""
    row["metrics"]["robust_accuracy_l2"] = share(0.9, 100)
    row["metrics"]["robust_accuracy_l2_at_0.5000"] = share(0.5, 100)


def _on_other_points(row: Json) -> None:
    row["metrics"]["robust_accuracy_l2"] = share(0.5, 400)


@pytest.mark.parametrize("planted", [_by_metrics, _by_curve, _on_other_points])
def test_a_refuted_certificate_is_found_wherever_it_stands(
    tmp_path: Path, planted: Callable[[Json], None]
) -> None:
    row = certified([0.6] * 70 + [0.1] * 30, robust=50)
    planted(row)
    with pytest.raises(ResultsError, match=r"0\.700 .* lies above the accuracy 0\.500"):
        check_certificates(load(_run(tmp_path, row)))


def test_other_points_may_differ_within_their_intervals(tmp_path: Path) -> None:
    row = certified([0.6] * 55 + [0.1] * 45, robust=50)
    row["metrics"]["robust_accuracy_l2"] = share(0.5, 400)
    check_certificates(load(_run(tmp_path, row)))


@pytest.mark.parametrize(("refuted", "passes"), [(0, True), (2, True), (12, False)])
def test_certificates_refuted_inside_their_own_radius_stop_the_check(
    refuted: int, passes: bool, tmp_path: Path
) -> None:
    # Of 100 points, none is certified at the radius of the attack on all points.
    row = certified([0.4] * 100, robust=90, failure=0.001)
    marks = [place < refuted for place in range(100)]
    row["notes"]["certification"]["attacked"] = {
        "inside": 0.9, "points": list(range(100)), "refuted": marks,
        "wavered": [place < 20 for place in range(100)],
        "settling": {"radius": 0.4, "probability": 0.001, "draws": 2950},
    }  # fmt: skip
    run = load(_run(tmp_path, row))
    notes = run.records[0].certification
    assert notes is not None and notes.attacked is not None
    assert notes.attacked.text() == (
        f"attacked at 0.9 of its own radius, the certificate of {refuted} of 100 points was "
        "refuted, and the deployed answer wavered on 20; at the median radius a vote of 2,950 "
        "draws wavers no more often than a certificate fails"
    )
    if passes:
        check_certificates(run)
        page = write_report(tmp_path).read_text()
        assert "a vote of 2,950 draws" in page
        return
    with pytest.raises(ResultsError, match=f"trial proof .*: {refuted} of 100 certified points"):
        check_certificates(run)


def test_a_smaller_radius_or_a_wrong_class_certifies_nothing_there(tmp_path: Path) -> None:
    row = certified([0.49] * 100, robust=0)
    check_certificates(load(_run(tmp_path / "smaller", row)))
    row = certified([0.9] * 100, robust=0)
    row["notes"]["certification"]["right"] = [False] * 100
    check_certificates(load(_run(tmp_path / "wrong", row)))


def test_a_vote_that_may_abstain_near_the_edge_refutes_no_certificate(tmp_path: Path) -> None:
    smoothing = {"name": "randomized_smoothing", "sigma": 0.25, "alpha": 0.001, "draws": 300}
    margin = answer_margin((smoothing,))
    # 300 votes need 179 for one class (2 P(B(300, 1/2) >= 179) <= 0.001); p = 0.682 gives as many
    # in 99.9 % of all votes, and 0.25 Phi^-1(0.682) = 0.118.
    assert margin == pytest.approx(0.118, abs=0.004)
    assert answer_margin((fgsm(0.1),)) == 0
    assert answer_margin(({**smoothing, "draws": 5},)) == float("inf")
    for reach, refuted in ((0.5 + 0.9 * margin, False), (0.5 + 1.1 * margin, True)):
        row = certified([reach] * 100, robust=50)
        row["spec"]["stack"] = [smoothing]
        run = load(_run(tmp_path / f"{refuted}", row))
        if not refuted:
            check_certificates(run)
            continue
        with pytest.raises(ResultsError, match="trial proof"):
            check_certificates(run)


def test_outcomes_of_the_builder_have_the_shares_of_the_metrics() -> None:
    for row in audit_records(demo_candidates()[1], 1):
        for metric in ("clean_accuracy", "robust_accuracy"):
            marks = row["notes"]["outcomes"][metric]
            assert marks.count("1") / len(marks) == pytest.approx(row["metrics"][metric]["value"])


def test_a_record_keeps_its_outcomes(tmp_path: Path) -> None:
    audit = load(write_demo_audit(tmp_path)).audit
    assert audit is not None
    kept: Record = audit.records[0]
    assert set(kept.outcomes) == {"clean_accuracy", "robust_accuracy"}
    assert len(kept.outcomes["clean_accuracy"]) == POINTS


def test_an_audit_of_an_earlier_version_says_what_to_do(tmp_path: Path) -> None:
    folder = write_demo_audit(tmp_path)
    file = folder / "audit" / "manifest.json"
    plain = json.loads(file.read_text())
    plain["stage_versions"] = {name: 1_000 for name in plain["stage_versions"]}
    file.write_text(json.dumps(plain))
    candidate = audited(load(folder))[1]
    assert candidate.verdict == "unverified"
    assert candidate.because.startswith("only 0 of 3 seeds of its audit count (another version ")
    assert candidate.because.endswith("; launch again under a new --name)")


def test_a_verdict_names_every_backdoor_and_which_defense_no_poison_was_made_against(
    tmp_path: Path,
) -> None:
    success = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 54}
    pairs = [
        {"source": 7, "target": 1, "success": success | {"value": 0.9}},
        {"source": None, "target": 8, "success": success | {"value": 0.1}},
    ]
    backdoor = {
        "poisoned_rows": 9, "training_rows": 897, "share_of_target_class": 0.1, "row_scores": {},
        "attacks": [{"attack": "cover", "success": success, "pairs": pairs}],
        "adaptive": False,
        "not_adaptive_because": ["no poison that is made against ft_sam is run"],
    }  # fmt: skip
    folder = _of_threats(tmp_path, ("backdoor",))
    file = folder / "audit" / "records" / "audit0seed0.json"
    plain = json.loads(file.read_text())
    plain["notes"]["backdoor"] = backdoor
    file.write_text(json.dumps(plain))
    (found,) = audited(load(folder))
    assert "backdoors: cover 0.50 (7 to 1: 0.90, all to 8: 0.10); no poison" in found.because
    notes = found.records[0].poisoning
    assert notes is not None and notes.adaptive is False
    assert found.verdict == "verified"
    assert found.backdoors[0] in found.because
    # A verdict that rests on something else hides none of it.
    (folder / "audit" / "records" / "audit0seed1.json").unlink()
    (short,) = audited(load(folder))
    assert short.verdict == "unverified" and "backdoors" not in short.because
    assert short.backdoors == found.backdoors
    page = write_report(folder).read_text()
    assert "cover 0.50 (7 to 1: 0.90, all to 8: 0.10)" in page
