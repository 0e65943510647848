"""What an audit's first seed measures, what the others leave out, and what they never do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.audit.specs import (
    FIRST_SEED,
    AuditSettings,
    audit_specs,
    changes,
    fresh_seeds,
)
from search_spaces import load_space
from tests.making import EPS, context_of, spec_of
from trainables.threats import THREATS, Threat, build_threat
from trainables.threats.backdoor.backdoor import Backdoor
from trainables.threats.evasion.evasion import Evasion
from trainables.threats.membership.membership import Membership
from trainables.trial.given import GivenSpecs, config_of, flat_of, sampled_of
from trainables.trial.settings import DataSpec
from trainables.trial.spec import TrialSpec, spec_from_canonical

OBJECTIVES = {"clean_accuracy", "robust_accuracy", "backdoor_success_rate", "membership_auc"}
SETTINGS = AuditSettings(shadows=8, points=None)


def built(**threats: dict[str, Any]) -> list[Threat]:
    return [build_threat(name, raw, radius=EPS) for name, raw in threats.items()]


def audits(
    threats: list[Threat],
    needed: set[str] = OBJECTIVES,
    settings: AuditSettings = SETTINGS,
) -> tuple[TrialSpec, ...]:
    return audit_specs(spec_of(threats=threats), fresh_seeds(3, [0]), needed, settings)


def names(spec: TrialSpec) -> list[str]:
    return [threat.name for threat in spec.threats]


def test_seeds_are_fresh_and_a_larger_number_adds_to_them() -> None:
    assert fresh_seeds(2, [0]) == [FIRST_SEED, FIRST_SEED + 1]
    assert fresh_seeds(2, [FIRST_SEED]) == [FIRST_SEED + 1, FIRST_SEED + 2]
    assert fresh_seeds(5, [0])[:2] == fresh_seeds(2, [0])


def test_every_trial_is_of_audit_effort_and_else_the_searchs() -> None:
    searched = spec_of(threats=built(evasion={}))
    for spec, seed in zip(audits(built(evasion={})), fresh_seeds(3, [0]), strict=True):
        assert (spec.effort, spec.seed) == ("audit", seed)
        assert (spec.model, spec.training, spec.stack) == (
            searched.model, searched.training, searched.stack,
        )  # fmt: skip


def test_an_audit_trains_on_the_rows_that_were_searched_and_measures_on_all_there_are() -> None:
    searched = DataSpec(
        name="folder:shapes", image_size=16, resize="squash", skip_bad_images=True,
        accepted="ab12", train_images=150, measured_images=40,
    )  # fmt: skip
    spec = replace(spec_of(threats=built(membership={})), data=searched)
    for found in audit_specs(spec, fresh_seeds(3, [0]), OBJECTIVES, SETTINGS):
        # Whatever else a data set is given by is kept too, and so it is where fields are added.
        assert found.data == replace(searched, measured_images=None)


def test_the_audit_of_privacy_trains_on_as_few_rows_as_its_search(tmp_path: Path) -> None:
    space = load_space("privacy")
    spec = space.spec(space.first_draws()[0])
    assert spec.data.train_images == 150
    first, *_ = audit_specs(spec, fresh_seeds(1, [0]), OBJECTIVES, SETTINGS)
    pools = [context_of(each, tmp_path).pools.train for each in (spec, first)]
    assert len(pools[0]) == 150 and torch.equal(pools[0].pixels, pools[1].pixels)
    assert changes(spec, SETTINGS) == ()


def test_what_an_audit_changes_is_said_with_its_reason() -> None:
    threats = built(evasion={"points": 12}, certification={}, membership={"points": 30})
    spec = spec_of(threats=threats, measured_images=60)
    measured, points = changes(spec, AuditSettings(shadows=8, points=150))
    assert "on all test images instead of 60 (measured_images): the model stays" in measured
    assert points.startswith("evasion takes 150 points instead of 12, ")
    (own,) = changes(replace(spec, data=DataSpec()), SETTINGS)
    assert own.startswith("evasion takes an audit's own number of points instead of 12, ")
    assert changes(spec_of(threats=built(evasion={}), measured_images=None), SETTINGS) == ()


def test_the_first_seed_measures_everything_and_the_others_what_the_objectives_need() -> None:
    first, second, third = audits(built(**{name: {} for name in THREATS}))
    assert names(first) == list(THREATS)
    assert names(second) == names(third)
    assert names(second) == ["evasion", "certification", "backdoor", "membership"]
    evasion = [threat for threat in (*first.threats, *second.threats) if threat.name == "evasion"]
    assert [threat.canonical().get("extent") for threat in evasion] == [None, "headline"]
    shadows = [t.shadows for s in (first, second) for t in s.threats if isinstance(t, Membership)]
    assert shadows == [8, 0]


@pytest.mark.parametrize(
    ("metric", "threat"),
    [
        ("robust_accuracy_l2", "evasion"),
        ("robust_accuracy_at_radius_2", "evasion"),
        ("adversarial_accuracy_bim", "evasion"),
        ("detection_auroc", "detection"),
        ("inversion_ssim", "inversion"),
        ("latency_ms_p50", "cost"),
        ("membership_auc_lira_online", "membership"),
    ],
)
def test_a_metric_of_an_objective_or_constraint_is_measured_on_every_seed(
    metric: str, threat: str
) -> None:
    named: dict[str, dict[str, Any]] = {
        "evasion": {"attacks": ["bim"]},
        "membership": {"attacks": ["lira_online"], "shadows": 4},
    }
    raw = named.get(threat, {})
    for spec in audits(built(**{threat: raw}), {metric}):
        (found,) = spec.threats
        assert metric in found.metric_names()


def test_what_a_user_named_is_kept_on_the_first_seed() -> None:
    threats = built(
        evasion={"attacks": ["bim"], "eps": [0.1], "points": 12},
        membership={"attacks": ["rmia", "entropy"], "shadows": 4},
    )
    first, second, _ = audits(threats)
    evasion, membership = first.threats
    assert isinstance(evasion, Evasion) and isinstance(membership, Membership)
    # The number of points was the screen's; an audit has its own.
    assert (evasion.attacks, evasion.eps, evasion.points) == (("bim",), (0.1,), None)
    assert membership.shadows == 4
    cheap = second.threats[1]
    assert isinstance(cheap, Membership)
    assert (cheap.attacks_at("audit"), cheap.shadows) == (("entropy",), 0)


def test_backdoors_are_of_several_attacks_and_pairs_and_further_seeds_repeat_the_worst() -> None:
    first, *others = audits(built(backdoor={}))
    threat = first.threats[0]
    assert isinstance(threat, Backdoor)
    assert (threat.attacks, threat.pairs, threat.worst_at) == (("patch", "blend", "cover"), 4, None)
    for spec in others:
        assert spec.threats == (replace(threat, worst_at=FIRST_SEED),)


@pytest.mark.parametrize(
    ("raw", "attacks", "pairs"),
    [
        ({"trigger": "wanet"}, ("own", "patch", "blend", "cover"), 4),
        ({"labels": "kept"}, ("own", "patch", "blend", "cover"), 4),
        ({"attacks": ["sig", "blend"], "pairs": 6}, ("sig", "blend", "patch", "cover"), 6),
        ({"size": 3, "rate": 0.2}, ("patch", "blend", "cover"), 4),
    ],
)
def test_the_backdoor_that_a_user_named_is_audited_besides_the_usual_ones(
    raw: dict[str, Any], attacks: tuple[str, ...], pairs: int
) -> None:
    (threat,) = audits(built(backdoor=raw))[0].threats
    assert isinstance(threat, Backdoor)
    assert (threat.attacks, threat.pairs) == (attacks, pairs)
    # Those that the search drew are left out.
    assert threat.pairs_seen == raw.get("pairs", 0)


def test_cheap_attacks_alone_get_no_reference_models() -> None:
    (membership,) = audits(built(membership={"attacks": ["entropy"]}))[0].threats
    assert isinstance(membership, Membership) and membership.shadows is None


def test_the_audits_points_bound_what_is_attacked_and_certified() -> None:
    settings = AuditSettings(shadows=None, points=64)
    for spec in audits(built(evasion={}, certification={"points": 5}), OBJECTIVES, settings):
        assert [threat.canonical()["points"] for threat in spec.threats] == [64, 64]


def test_without_evasion_what_there_is_is_audited() -> None:
    first, second, _ = audits(built(membership={}), {"clean_accuracy"})
    assert names(first) == names(second) == ["membership"]


def test_a_spec_comes_back_whole_from_the_config_of_its_trial() -> None:
    for spec in audits(built(**{name: {} for name in THREATS})):
        config = config_of(spec, flat_of(spec))
        assert GivenSpecs(()).spec(config) == GivenSpecs(()).spec(flat_of(spec)) == spec
        assert sampled_of(config) == flat_of(spec)
        assert spec_from_canonical(spec.canonical()).trial == spec.trial


def test_trials_from_before_there_was_an_extent_keep_their_identity() -> None:
    assert "extent" not in Evasion().canonical()
    assert Evasion(extent="headline").canonical()["extent"] == "headline"
