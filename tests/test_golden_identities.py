"""Golden identities: no move of files and no refactoring may change a trial's or an artefact's.

A user's records, journals and stores hold trials and artefacts by these identities: where one
changes, a resumed sweep repeats work. The golden files in tests/golden/ are written by

    python -m tests.golden

which keeps a file that differs, and fails; `--replace` replaces it. Do that for new spaces and new
defenses. Replace an old line only where every user's runs are meant to lose their use.

A stage whose results change raises its VERSION, which changes artefact keys as it must. So the
keys are computed here with the recorded versions: raising one breaks no test.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from search_spaces import Space
from tests.golden import artefacts, spaces
from tests.golden.__main__ import ARTEFACTS, TRIALS, main
from trainables.storage.artefacts import ArtefactStore
from trainables.storage.identity import identity_hash
from trainables.trial.given import GivenSpecs, config_of
from trainables.trial.spec import spec_from_canonical

SPACES: dict[str, Any] = json.loads(TRIALS.read_text())
KEYS: dict[str, Any] = json.loads(ARTEFACTS.read_text())
SHIPPED = dict(spaces.shipped())
CASES = artefacts.cases()


def test_every_shipped_space_is_golden() -> None:
    assert list(SHIPPED) == list(SPACES), "write the new space's identities: python -m tests.golden"


@pytest.mark.parametrize("name", SPACES)
def test_a_space_draws_and_names_the_trials_that_it_did(name: str) -> None:
    space, golden = SHIPPED[name], SPACES[name]
    assert identity_hash(space.canonical()) == golden["space"], "old runs of it cannot be resumed"
    assert space.first_draws() == [row["flat"] for row in golden["first"]]
    assert golden["drawn"]
    for row in golden["drawn"]:
        assert _drawn(space, row["flat"]) == row["flat"]
    for row in (*golden["first"], *golden["drawn"]):
        spec = space.spec(row["flat"])
        assert spec.trial == row["trial"], f"another identity: {row['flat']}"
        stored = json.loads(json.dumps(spec.canonical()))
        assert spec_from_canonical(stored).trial == row["trial"]
        sent = GivenSpecs(()).spec(config_of(spec, row["flat"]))
        assert json.dumps(sent.canonical()) == json.dumps(spec.canonical()), "another record"


def _drawn(space: Space, flat: dict[str, Any]) -> dict[str, Any]:
    """Draw from the space as a search does, with the recorded answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # optuna only warns of a value outside its distribution
        return space.suggest(FixedTrial(flat))


def test_every_case_of_artefacts_is_golden() -> None:
    assert list(CASES) == list(KEYS), "write the new case's keys: python -m tests.golden"


@pytest.mark.parametrize("name", KEYS)
def test_a_trial_asks_for_the_artefacts_that_it_did(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    asked = list(artefacts.asked(CASES[name], tmp_path).values())
    golden = KEYS[name]["artefacts"]
    assert golden
    for row in golden:
        problem = artefacts.compared(row, asked)
        assert problem is None, problem


def test_the_golden_keys_are_of_the_golden_identities() -> None:
    rows = [row for case in KEYS.values() for row in case["artefacts"]]
    for row in rows:
        assert ArtefactStore.key(row["kind"], row["identity"]) == row["key"]
    kinds = {row["kind"] for row in rows}
    assert {"model", "denoiser", "shadow_answers", "decoder", "evaluation_evasion"} <= kinds


def test_a_raised_version_is_let_through_and_anything_else_is_reported() -> None:
    row = next(r for r in KEYS["undefended"]["artefacts"] if r["kind"] == "evaluation_evasion")
    identity = row["identity"]
    raised = {**identity, "version": identity["version"] + 1}
    assert artefacts.compared(row, [{"kind": row["kind"], "identity": raised}]) is None
    lowered = {**identity, "training": identity["training"] - 1}
    found = artefacts.compared(row, [{"kind": row["kind"], "identity": lowered}])
    assert found is not None and "training was lowered" in found
    threat = {**identity["threat"], "points": 7}
    changed = {**identity, "threat": threat}
    found = artefacts.compared(row, [{"kind": row["kind"], "identity": changed}])
    assert found is not None and "although no version was raised" in found
    assert "threat.points: null was recorded, 7 now" in found
    both = artefacts.compared(
        row, [{"kind": row["kind"], "identity": {**raised, "threat": threat}}]
    )
    assert both is not None and "more than its version" in both
    renamed = artefacts.compared(row, [{"kind": "model", "identity": identity}])
    assert renamed is not None and "nothing of this kind is asked for" in renamed


def test_golden_files_that_differ_are_kept_unless_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.golden.__main__.TRIALS", tmp_path / "trials.json")
    monkeypatch.setattr("tests.golden.__main__.ARTEFACTS", tmp_path / "artefacts.json")
    monkeypatch.setattr(spaces, "identities", lambda: {"a": {"drawn": [1, 2]}})
    monkeypatch.setattr(artefacts, "keys", lambda folder: {"b": [{"key": 1}]})
    assert main([]) == 0 and main([]) == 0
    written = (tmp_path / "trials.json").read_text()
    assert json.loads(written) == {"a": {"drawn": [1, 2]}}
    monkeypatch.setattr(spaces, "identities", lambda: {"a": {"drawn": [3]}})
    assert main([]) == 1
    assert "trials.json differs and was kept" in capsys.readouterr().err
    assert (tmp_path / "trials.json").read_text() == written
    assert main(["--replace"]) == 0
    assert json.loads((tmp_path / "trials.json").read_text()) == {"a": {"drawn": [3]}}
