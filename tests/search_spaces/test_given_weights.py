"""Spaces over given weights: what they do not allow is left out, or refused, with the reason."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands.audit import audit_options
from search_spaces import Overrides, Space, load_space, stored_space
from tests.models.given.checkpoints import checkpoint, network
from tests.search_spaces.writing import TINY, write_space
from trainables.errors import InputError

SPACE: dict[str, Any] = {
    "defenses": {"trades": {}, "ft_sam": {}, "temperature": {"T": [1.5, 2]}, "energy_detector": {}},
    "first": [{}, {"trades": {}}, {"temperature": {"T": 1.5}}],
    "objectives": ["clean_accuracy"],
}


def asked(place: str, **changes: Any) -> Overrides:
    """Return what the command line says."""
    said: dict[str, Any] = {"model": "small_cnn", "weights": place, "trained_on": "nothing"}
    return Overrides(**{**said, **changes})


def loaded(folder: Path, overrides: Overrides, **changes: Any) -> Space:
    """Load the space with the overrides."""
    return load_space(str(write_space(folder, **{**SPACE, **changes})), overrides)


def test_defenses_that_train_are_left_out_with_the_reason(tmp_path: Path) -> None:
    space = loaded(tmp_path, asked(checkpoint(tmp_path)))
    assert set(space.left_out) == {"trades", "ft_sam"} and all(space.left_out.values())
    assert set(space.domains) == {"temperature", "energy_detector"}
    assert len(space.first_draws()) == 2
    spec = space.spec({"slot.deployment": "temperature"})
    assert spec.model.weights == str(tmp_path / "weights.pt")
    assert spec.data.trained_on == "nothing" and spec.training.epochs == 1
    assert loaded(tmp_path, Overrides()).left_out == {}


def test_the_space_is_the_same_from_wherever_and_without_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = checkpoint(tmp_path)
    space = loaded(tmp_path, asked(place))
    monkeypatch.chdir(tmp_path)
    assert loaded(tmp_path, asked("weights.pt")).canonical() == space.canonical()
    plain = space.canonical()["scenarios"][0]
    assert plain["model"] == {"name": "small_cnn", "norm": "default", "weights": place}
    other = loaded(tmp_path, Overrides(), scenarios=[{"model": {"name": "small_cnn"}}])
    assert set(other.canonical()["scenarios"][0]) == {"dataset", "image_size", "model", "training"}
    before = space.spec({}).trial
    checkpoint(tmp_path, network(seed=1))
    assert space.spec({}).trial != before, "another file is another model"
    (tmp_path / "weights.pt").unlink()
    manifest = {"space": space.canonical(), "description": ""}
    assert stored_space(manifest).left_out == space.left_out


@pytest.mark.parametrize(
    ("said", "changes", "words"),
    [
        ({"model": None}, {}, "name their network with --model"),
        (
            {},
            {"scenarios": [{"training": {"epochs": [1, 2]}}]},
            "training: epochs is a range, but given weights are kept as they are",
        ),
        ({"weights": None}, {}, "trained_on: it says what given weights saw"),
        ({}, {"objectives": ["generalization_gap"]}, "cannot be searched by: nothing says what"),
        (
            {},
            {"threats": {"backdoor": {}}, "objectives": ["backdoor_success_rate"]},
            "backdoor_success_rate cannot be searched by: it takes further trainings",
        ),
        (
            {},
            {"threats": {"membership": {}}, "constraints": ["membership_auc <= 0.6"]},
            "membership_auc cannot be searched by: the given weights were trained on none",
        ),
        ({"weights": "s3://key:secret@bucket/w.pt"}, {}, "give credentials by the environment"),
    ],
)
def test_what_given_weights_do_not_allow_is_refused(
    said: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    overrides = asked(checkpoint(tmp_path), **said)
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, overrides, **changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_scenarios_are_all_given_or_none(tmp_path: Path) -> None:
    named = {"name": "small_cnn", "weights": checkpoint(tmp_path)}
    scenarios = [{"model": named, "trained_on": "nothing"}, {"model": "small_cnn"}]
    with pytest.raises(InputError, match="some have given weights and some none"):
        loaded(tmp_path, Overrides(), scenarios=scenarios)


def test_one_network_is_audited_on_one_seed(tmp_path: Path) -> None:
    given = loaded(tmp_path, asked(checkpoint(tmp_path)))
    trained = loaded(tmp_path, Overrides(), scenarios=TINY["scenarios"])
    assert audit_options(given, False, candidates=None, seeds=None).seeds == 1
    assert audit_options(trained, False, candidates=None, seeds=None).seeds == 3
    assert audit_options(given, False, candidates=None, seeds=1).seeds == 1
    with pytest.raises(InputError, match="they are audited on one"):
        audit_options(given, False, candidates=None, seeds=2)
