"""Trainings that are interrupted and go on: in this process, and after a kill in another one."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.making import EPS, all_finite, context_of, spec_of
from trainables.defenses import DEFENSES, Stack, build_defense
from trainables.defenses.prediction import image_network
from trainables.errors import StorageError, TrainingDivergedError
from trainables.storage.artefacts import Artefact, ArtefactStore, FileLease
from trainables.training import checkpoints, loop
from trainables.training.checkpoints import Checkpoints, packed, unpacked
from trainables.training.trained import Trained
from trainables.trial.settings import TrainingSpec
from trainables.trial.spec import TrialSpec

EPOCHS = 3
Row = tuple[str, Mapping[str, Any]]
ROWS: list[Row] = [
    (name, {"epochs": EPOCHS} if name == "static_adversarial_finetuning" else {})
    for name in DEFENSES
    if name == "none" or build_defense(name, {}, radius=EPS).shapes_training
]
"""Every defense that has a part in the training, at its defaults, and those below."""
ROWS += [
    ("dp_sgd", {"noise_multiplier": 0}),
    ("early_stopping", {"patience": 1}),
    ("fgsm_adversarial_training", {"eps": "1 radius", "random_start": True}),
    ("pixeldp", {"placement": "image"}),
    ("pixeldp", {"placement": "layer2"}),
]
OPTIMIZERS = list(itertools.product(("sgd", "adam"), ("one_cycle", "cosine", "constant")))


class InterruptedTrainingError(RuntimeError):
    """A worker died."""


@pytest.fixture
def after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a checkpoint after the first epoch of a training that is begun or resumed."""
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 0.0)


@pytest.fixture
def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count the epochs that are trained, of whatever model."""
    trained: list[object] = []
    for module, name in ((loop, "_train_epoch"), (image_network, "_epoch")):
        original = getattr(module, name)

        def counted(*arguments: Any, original: Any = original) -> Any:
            trained.append(1)
            return original(*arguments)

        monkeypatch.setattr(module, name, counted)
    return trained


def _trained(spec: TrialSpec, folder: Path) -> Trained:
    ctx = context_of(spec, folder)
    return ctx.train(spec.stack, ctx.pools.train, spec.seed)


def _trained_in_pieces(spec: TrialSpec, folder: Path) -> tuple[Trained, int]:
    """Train, dying after each checkpoint that is written; give also how often that was."""
    keep, deaths = ArtefactStore.keep_progress, 0

    def keep_and_die(store: ArtefactStore, key: str, artefact: Artefact) -> None:
        keep(store, key, artefact)
        raise InterruptedTrainingError(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArtefactStore, "keep_progress", keep_and_die)
        while True:
            try:
                return _trained(spec, folder), deaths
            except InterruptedTrainingError:
                deaths += 1


def _kept_in(folder: Path) -> list[Path]:
    return list(folder.glob("progress-*"))


def _assert_ends_alike(spec: TrialSpec, tmp_path: Path, epochs_trained: list[object]) -> None:
    undisturbed = _trained(spec, tmp_path / "undisturbed")
    epochs = len(epochs_trained)
    resumed, deaths = _trained_in_pieces(spec, tmp_path / "resumed")
    assert deaths >= len(undisturbed.curves["train_loss"]) - 1
    assert len(epochs_trained) == 2 * epochs  # none was trained twice
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert resumed.curves == undisturbed.curves
    assert resumed.key == undisturbed.key
    assert len(resumed.seconds) == len(undisturbed.seconds) and all_finite(resumed.seconds)
    assert _kept_in(tmp_path / "resumed") == []


@pytest.mark.usefixtures("after_every_epoch")
@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: "-".join([row[0], *map(str, row[1].values())])
)
def test_under_every_defense_a_resumed_training_ends_in_the_same_bits(
    row: Row, tmp_path: Path, epochs_trained: list[object]
) -> None:
    spec = spec_of(build_defense(*row, radius=EPS), epochs=EPOCHS, train_images=150)
    _assert_ends_alike(spec, tmp_path, epochs_trained)


@pytest.mark.usefixtures("after_every_epoch")
@pytest.mark.parametrize(("optimizer", "schedule"), OPTIMIZERS)
def test_with_every_optimizer_and_schedule_a_resumed_training_ends_in_the_same_bits(
    optimizer: str, schedule: str, tmp_path: Path, epochs_trained: list[object]
) -> None:
    settings = TrainingSpec(
        epochs=EPOCHS, optimizer=optimizer, schedule=schedule, augmentation="crop_flip"
    )
    _assert_ends_alike(spec_of(training=settings, train_images=150), tmp_path, epochs_trained)


@pytest.mark.usefixtures("after_every_epoch")
@pytest.mark.parametrize("name", ["denoiser", "diffusion_purification"])
def test_a_network_of_images_is_resumed_too(
    name: str, tmp_path: Path, epochs_trained: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(build_defense(name, {"epochs": EPOCHS}, radius=EPS), train_images=100)
    digests = []
    for folder, dying in ((tmp_path / "undisturbed", False), (tmp_path / "resumed", True)):
        ctx = context_of(spec, folder)
        model = ctx.train(Stack(), ctx.pools.train, 0).model
        epochs_trained.clear()
        with monkeypatch.context() as patch:
            keep = ArtefactStore.keep_progress

            def keep_and_die(
                store: ArtefactStore, key: str, kept: Artefact, keep: Any = keep
            ) -> None:
                keep(store, key, kept)
                raise InterruptedTrainingError

            if dying:
                patch.setattr(ArtefactStore, "keep_progress", keep_and_die)
                for _ in range(EPOCHS - 1):
                    with pytest.raises(InterruptedTrainingError):
                        ctx.deploy(spec.stack, model)
            ctx.deploy(spec.stack, model)
        assert len(epochs_trained) == EPOCHS
        (kept,) = [path for path in folder.glob("*.safetensors") if path.stem[:6] != "model-"]
        found = ctx.store._read(ctx.store.folder, kept.stem)
        assert found is not None
        digests.append(({n: t.tolist() for n, t in found.tensors.items()}, found.values["losses"]))
    assert digests[0] == digests[1]


def _interrupted(spec: TrialSpec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a training die after its first epoch; give the file of its checkpoint."""

    def die(*arguments: Any) -> None:
        raise InterruptedTrainingError

    once = iter([loop._end_epoch])
    with monkeypatch.context() as patch, pytest.raises(InterruptedTrainingError):
        patch.setattr(loop, "_end_epoch", lambda *rest: next(once, die)(*rest))
        _trained(spec, folder)
    (path,) = _kept_in(folder)
    return path


@pytest.mark.usefixtures("after_every_epoch")
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another model", "another device"])
def test_a_checkpoint_that_is_no_good_is_dropped_and_the_training_starts_again(
    damage: str,
    tmp_path: Path,
    epochs_trained: list[object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = spec_of(epochs=EPOCHS, train_images=150)
    undisturbed = _trained(spec, tmp_path / "undisturbed")
    path = _interrupted(spec, tmp_path / "damaged", monkeypatch)
    whole = path.read_bytes()
    if damage == "another model":
        other = spec_of(build_defense("pixeldp", {}, radius=EPS), epochs=EPOCHS, train_images=150)
        whole = _interrupted(other, tmp_path / "other", monkeypatch).read_bytes()
    if damage == "another device":
        store = ArtefactStore(tmp_path / "damaged")
        key = path.stem.removeprefix("progress-")
        kept = store.progress(key)
        assert kept is not None
        state = unpacked(kept)
        state["moving"]["device"] = "cuda"
        store.keep_progress(key, packed(state))
        whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut": whole[:middle],
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "empty": b"",
        }.get(damage, whole)
    )
    epochs_trained.clear()
    again = _trained(spec, tmp_path / "damaged")
    assert len(epochs_trained) == EPOCHS
    assert again.weights_sha256 == undisturbed.weights_sha256
    assert again.curves == undisturbed.curves
    assert "built again" in caplog.text or "starts again" in caplog.text
    assert _kept_in(tmp_path / "damaged") == []


def test_a_short_training_keeps_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArtefactStore, "keep_progress", lambda *rest: pytest.fail("kept"))
    assert _trained(spec_of(epochs=EPOCHS), tmp_path).seconds


def test_a_checkpoint_is_kept_every_thirty_seconds_and_less_often_where_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, kept = [0.0], list[float]()

    def keep(*arguments: object) -> None:
        kept.append(now[0])
        now[0] += 0.1 if len(kept) < 3 else 2.0  # seconds that a write takes

    store = ArtefactStore(tmp_path)
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(store, "keep_progress", keep)
    written = Checkpoints(store, "key")
    while now[0] < 600:
        now[0] += 9.0
        written.keep(lambda: {})
    waits = [after - before for before, after in zip([0.0, *kept], kept, strict=False)]
    assert all(30 <= wait < 40 for wait in waits[:3])
    assert all(200 <= wait < 215 for wait in waits[3:]) and len(waits) > 4


@pytest.mark.usefixtures("after_every_epoch")
def test_a_training_goes_on_where_its_checkpoint_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    spec = spec_of(epochs=EPOCHS)
    undisturbed = _trained(spec, tmp_path / "a")
    monkeypatch.setattr(ArtefactStore, "keep_progress", full)
    assert _trained(spec, tmp_path / "b").weights_sha256 == undisturbed.weights_sha256
    assert "no checkpoint can be kept (the disk is full)" in caplog.text


@pytest.mark.usefixtures("after_every_epoch")
def test_a_training_that_diverges_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(epochs=EPOCHS)
    _interrupted(spec, tmp_path, monkeypatch)

    def diverge(*arguments: object) -> None:
        raise TrainingDivergedError("the training loss is nan in epoch 2 of 3")

    monkeypatch.setattr(loop, "_end_epoch", diverge)
    with pytest.raises(TrainingDivergedError):
        _trained(spec, tmp_path)
    assert _kept_in(tmp_path) == []


def test_what_is_packed_comes_back_as_it_was() -> None:
    state = {
        "by number": {0: {"step": torch.tensor(3.0)}, 1: {"momentum": None}},
        "groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "params": [0, 1], "nesterov": True}],
        "empty": [{}, [], ()],
        "text": "ä",
    }
    back = unpacked(packed(state))
    assert torch.equal(back["by number"][0].pop("step"), state["by number"][0].pop("step"))  # type: ignore[index]
    assert back == state
    assert type(back["groups"][0]["betas"]) is tuple
    with pytest.raises(TypeError, match="a object is neither tensor nor plain value"):
        packed({"x": object()})


KILLED = """
import sys, time
from pathlib import Path
from tests.training import test_checkpoints as t
from trainables.training import checkpoints
from trainables.storage.artefacts import ArtefactStore

keep = ArtefactStore.keep_progress
def keep_and_wait(store, key, artefact):
    keep(store, key, artefact)
    print("kept", flush=True)
    time.sleep(600)

checkpoints.EVERY_SECONDS = 0.0
ArtefactStore.keep_progress = keep_and_wait
t.train_with_short_claims(Path(sys.argv[1]))
"""


def train_with_short_claims(folder: Path) -> Trained:
    """Train under the defense with the most state, with claims that die within a second."""
    torch.set_num_threads(1)
    stack = [build_defense(name, {}, radius=EPS) for name in ("pixeldp", "early_stopping")]
    spec = spec_of(*stack, epochs=EPOCHS)
    ctx = context_of(spec, folder)
    ctx.store.lease = FileLease(folder / "leases", ttl=1.0)
    return ctx.train(spec.stack, ctx.pools.train, spec.seed)


def test_a_training_that_was_killed_goes_on_in_another_process(
    tmp_path: Path, epochs_trained: list[object]
) -> None:
    undisturbed = train_with_short_claims(tmp_path / "undisturbed")
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(killed)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "kept\n"
        os.kill(process.pid, signal.SIGKILL)
    assert [path.name for path in killed.glob("*.safetensors")] == [_kept_in(killed)[0].name]
    epochs_trained.clear()
    resumed = train_with_short_claims(killed)
    assert len(epochs_trained) == EPOCHS - 1
    assert resumed.weights_sha256 == undisturbed.weights_sha256
    assert resumed.curves == undisturbed.curves
    assert _kept_in(killed) == []
