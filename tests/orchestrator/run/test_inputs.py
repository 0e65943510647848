"""No resume mixes two data sets, or two versions of a user's code, without a word."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.run.inputs import (
    DataFound,
    Inputs,
    found_inputs,
    refuse_changes,
    set_aside,
    settled_inputs,
)
from orchestrator.run.manifest import read_manifest
from orchestrator.run.paths import MANIFEST, RunPaths
from search_spaces.loader import read_space_file
from search_spaces.space import build_space
from tests.making import CPU
from trainables.datasets import load_dataset
from trainables.errors import InputError
from trainables.records.record import TrialRecord, write_record
from trainables.storage.artefacts import ArtefactStore
from trainables.trial.context import build_context
from trainables.trial.settings import DataSpec, ModelSpec, TrainingSpec
from trainables.trial.spec import TrialSpec, spec_from_canonical

PHOTOS = DataFound("ab" * 32, 1200, 4)
BEGUN = Inputs(data={"folder:/photos (8x8)": PHOTOS}, code={"mine.models:net": "c" * 64})
NOISE = replace(PHOTOS, fingerprint="cd" * 32, images=1140)
OTHER_DATA = replace(BEGUN, data={"folder:/photos (8x8)": NOISE})
OTHER_CODE = replace(BEGUN, code={"mine.models:net": "d" * 64})


def manifest(inputs: Inputs) -> dict[str, object]:
    """Return a manifest as it is read back."""
    found: dict[str, object] = json.loads(json.dumps({"inputs": inputs.plain()}))
    return found


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (OTHER_DATA, "the images of folder:/photos (8x8) changed (1,200 images of 4 classes, "
                     "fingerprint abababababab then; 1,140 images of 4 classes, fingerprint "
                     "cdcdcdcdcdcd now)"),
        (OTHER_CODE, "the code or weights of mine.models:net changed"),
    ],
)  # fmt: skip
def test_other_inputs_are_refused_with_what_changed(
    now: Inputs, words: str, tmp_path: Path
) -> None:
    paths = RunPaths(tmp_path)
    for refuse in (
        lambda: settled_inputs(manifest(BEGUN), now, paths, accept=False),
        lambda: refuse_changes(manifest(BEGUN), now, paths.shown),
    ):
        with pytest.raises(InputError) as caught:
            refuse()
        assert words in str(caught.value) and "--accept-changes" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_same_inputs_go_on_as_they_were(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert settled_inputs(None, BEGUN, paths, accept=False) == BEGUN
    assert settled_inputs({}, BEGUN, paths, accept=False) == BEGUN  # of an earlier version
    assert settled_inputs(manifest(BEGUN), BEGUN, paths, accept=True) == BEGUN
    refuse_changes(manifest(BEGUN), BEGUN, paths.shown)
    refuse_changes({}, BEGUN, paths.shown)


def test_accepted_inputs_are_other_trials_and_stay_so(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    accepted = [
        settled_inputs(manifest(BEGUN), now, paths, accept=True) for now in (OTHER_DATA, OTHER_CODE)
    ]
    assert len({"", *(each.accepted for each in accepted)}) == 3
    assert settled_inputs(manifest(accepted[0]), OTHER_DATA, paths, accept=False) == accepted[0]
    back = settled_inputs(manifest(accepted[0]), BEGUN, paths, accept=True)
    assert back.accepted not in ("", accepted[0].accepted), "the old trials are set aside"
    space = build_space(read_space_file("smoke"))
    (draw, *_) = space.first_draws()
    changed = replace(space, accepted=accepted[0].accepted)
    assert changed.spec(draw).trial != space.spec(draw).trial
    again = spec_from_canonical(changed.spec(draw).canonical())
    assert again == changed.spec(draw), "an audit's specs are made of it"
    assert changed.canonical() == space.canonical(), "it is the same space"


def test_what_is_set_aside_stays_readable(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    spec = TrialSpec(data=DataSpec(), model=ModelSpec(), training=TrainingSpec())
    record = TrialRecord(trial=spec.trial, spec=spec.canonical(), sampled={}, status="completed")
    for run in (paths, paths.audit):
        write_record(record, run.records)
        run.folder.write(MANIFEST, b"{}")
    paths.journal.write_text("study")
    for before, name in (("", "start"), ("0" * 16, "0" * 16)):
        assert set_aside(paths, before) == 1
        for run in (paths, paths.audit):
            assert run.records.entries(".json") == []
            kept = run.records.read(f"{record.trial}.json.superseded-{name}").decode()
            assert TrialRecord.from_json(kept) == record
            write_record(record, run.records)
        assert read_manifest(paths) == {} and read_manifest(paths.audit) is None
        assert (tmp_path / "run" / f"study.journal.superseded-{name}").exists()
        paths.journal.write_text("another study")
        paths.audit.folder.write(MANIFEST, b"{}")


NET = """
from pathlib import Path
import numpy as np
import torch
from torch import nn

def net(*, channels, height, width, num_classes, **facts):
    layer = nn.Linear(channels * height * width, num_classes)
    weights = np.load(Path(__file__).with_name("weights.npy"))
    layer.load_state_dict({**layer.state_dict(), "weight": torch.from_numpy(weights)})
    return nn.Sequential(nn.Flatten(), layer)

def fresh(*, channels, height, width, num_classes, **facts):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))
"""


def test_a_checkpoint_that_changes_is_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_loaded_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    dataset = load_dataset("digits", data_dir=None, image_size=None, device=CPU)
    weights = np.random.default_rng(0).normal(size=(10, 64)).astype(np.float32)

    def fingerprint(name: str) -> str:
        spec = TrialSpec(data=DataSpec(), model=ModelSpec(name=name), training=TrainingSpec())
        state = torch.get_rng_state()
        ctx = build_context(spec, dataset, ArtefactStore(tmp_path / "store"), CPU)
        assert torch.equal(torch.get_rng_state(), state)
        return found_inputs([dataset], [ctx]).code[name]

    found = []
    for values in (weights, weights, -weights):
        np.save(tmp_path / "weights.npy", values)
        found.append((fingerprint("users_loaded_net:net"), fingerprint("users_loaded_net:fresh")))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0] and found[0][1] == found[2][1]
