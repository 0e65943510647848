"""The card of an exported model says what it is, how it was judged and where it ends."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from results.audit.audit import Audited
from results.bundle.card import Measurements, model_card
from results.bundle.card_text import card_markdown
from results.bundle.writing import Facts
from tests.making import EPS, context_of, spec_of
from trainables.defenses import DEFENSES, Defense, Stack, build_defense
from trainables.deployed.predictor import Predictor
from trainables.device import precisions
from trainables.records.value import Measured, Missing
from trainables.threats import build_threat
from trainables.trial.trainer import new_model

VALUE = Measured(0.8125, 0.75, 0.875, 270)


@dataclass(frozen=True, kw_only=True)
class Silent(Defense):
    """A user's own defense that declares nothing of itself."""

    name = "mine:Silent"
    slot = "deployment"


def _card(
    folder: Path,
    *stack: Defense,
    threats: tuple[str, ...] = ("evasion",),
    uncovered: tuple[str, ...] = (),
) -> dict[str, Any]:
    asked = [build_threat(name, {}, radius=EPS) for name in threats]
    spec = spec_of(*stack, threats=asked, train_images=None, pools="deployment", seed=77)
    ctx = context_of(spec_of(), folder)
    chosen = Audited(
        search=None,
        records=(),
        planned=3,
        values={"robust_accuracy": VALUE},
        seeds={"robust_accuracy": 3},
        missing={"membership_auc": "too few | points"},
        verdict="verified",
        because="3 seeds; no sign of masking",
        uncovered=uncovered,
        why="front",
        label="toy",
    )
    measured = Measurements(
        spec=spec,
        metrics={
            "robust_accuracy": Measured(0.7, 0.6, 0.8, 270),
            "dp_epsilon": Missing("the training is not differentially private"),
            "latency_ms_p50": Measured(1.0, 0.9, 1.1, 100),
        },
        attacks=("pgd", "autoattack"),
        rows=1300,
        training_rows=1347,
        measured_rows=270,
        hardware={"device": "a GPU", **precisions(torch.device("cuda"))},
    )
    model = ctx.with_weights(Stack(), new_model(ctx, Stack()).state_dict())
    facts = Facts(
        predictor=Predictor(model),
        created="2026-01-01T00:00:00+00:00",
        versions={"torch": "2"},
        program=None,
        no_program="it was not asked for",
        reference_points=64,
        fitted={"temperature": {"T": 1.25}, "denoiser": {}},
    )
    return model_card("a <run>", chosen, measured, ctx.dataset, facts)


@pytest.mark.parametrize("name", DEFENSES)
def test_every_defense_declares_its_limits_and_how_it_was_broken(name: str) -> None:
    found = DEFENSES[name]
    assert name == "none" or found.limits is not Defense.limits
    assert name == "none" or found.broken_by is not Defense.broken_by
    for text in (*found.limits, *found.broken_by):
        assert text.endswith(".") and len(text) > 30
    for text in found.broken_by:
        assert re.search(r", (19|20)\d\d", text) or "known to us" in text, "it names its source"


def test_the_card_tells_audited_figures_and_the_models_own_apart(tmp_path: Path) -> None:
    card = _card(tmp_path, build_defense("temperature", {}, radius=EPS))
    assert card["audited"]["metrics"]["robust_accuracy"] | {"meaning": ""} == {
        "value": 0.8125, "low": 0.75, "high": 0.875, "n": 270, "seeds": 3, "meaning": "",
        "direction": "maximize", "unit": "fraction", "interval": "Wilson score interval",
    }  # fmt: skip
    assert card["measured"]["metrics"]["robust_accuracy"]["value"] == 0.7
    assert card["measured"]["seed"] == 77 and card["fitted"] == {"temperature": {"T": 1.25}}
    assert card["measured"]["missing"] == {
        "dp_epsilon": "the training is not differentially private"
    }
    text = card_markdown(card)
    row = next(line for line in text.splitlines() if line.startswith(r"| robust\_accuracy |"))
    assert row == (
        r"| robust\_accuracy | 0.812 \[0.750, 0.875\] | 270 | 3 | 0.700 \[0.600, 0.800\] | 270 |"
    )
    assert "On a GPU: trained in bfloat16, measured in float32 (TF32 off)." in text
    assert "- rows: 1347" in text and "- fitted: temperature, T=1.25" in text


def test_the_card_says_that_backdoor_figures_are_of_a_twin(tmp_path: Path) -> None:
    told = json.dumps(_card(tmp_path, threats=("evasion", "backdoor"))["notes"])
    assert "twin" in told and "never trained on planted poison" in told
    assert "twin" not in json.dumps(_card(tmp_path)["notes"])


def test_the_card_names_the_attacks_the_radii_and_what_is_not_covered(tmp_path: Path) -> None:
    evasion, uncovered = _card(tmp_path)["threat_model"]
    assert "0.15" in evasion and "pgd, autoattack" in evasion and "knows the whole" in evasion
    assert "other norms" in uncovered


def test_the_card_names_what_did_not_attack_in_the_audit(tmp_path: Path) -> None:
    card = _card(tmp_path, uncovered=("evasion", "backdoor"))
    assert card["audited"]["not_attacked_by"] == ["evasion", "backdoor"]
    assert card["threat_model"][1].startswith("Not attacked by: evasion, backdoor in the audit")
    assert "Not attacked by: evasion, backdoor" in card_markdown(card)


def test_the_card_of_an_undefended_model_says_that_nothing_defends_it(tmp_path: Path) -> None:
    card = _card(tmp_path)
    assert card["guarantee"].startswith("none") and card["name"] == "none"
    assert "Nothing defends it" in card["limits"][0]["text"]
    assert "Szegedy et al., 2014" in card["broken_by"][0]["text"]


def test_a_defense_that_declares_nothing_is_not_given_the_words_of_another(tmp_path: Path) -> None:
    card = _card(tmp_path, Silent())
    assert card["limits"] == [{"defense": "mine:Silent", "text": "its author says nothing of it"}]
    assert card["broken_by"] == card["limits"]


@pytest.mark.parametrize(
    ("name", "kind"), [("randomized_smoothing", "certified"), ("trades", "empirical")]
)
def test_the_card_states_the_guarantee(name: str, kind: str, tmp_path: Path) -> None:
    card = _card(tmp_path, build_defense(name, {}, radius=EPS))
    assert card["guarantee"].startswith(kind)
    source = card["stack"][0]["source"]
    assert source == DEFENSES[name].source
    assert card_markdown(card).count("## ") >= 10


def test_nothing_in_the_card_is_markup_but_its_own(tmp_path: Path) -> None:
    text = card_markdown(_card(tmp_path))
    assert r"a \<run\>" in text
    assert "\n\n\n" not in text and "None" not in text
