"""Given weights: measured as they are, on images that they did not see, and never trained."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.datasets.folders import class_folders, load
from tests.datasets.making import fake_dataset, rows_of
from tests.making import CPU, EPS, context_of, same_weights, spec_of
from tests.models.given.checkpoints import checkpoint, given, network
from trainables.datasets import POOL_NAMES, split_pools
from trainables.declared import NOTHING
from trainables.defenses import DEFENSES, build_defense, build_stack
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.models import build_model
from trainables.records.value import Measured, Missing
from trainables.storage.artefacts import ArtefactStore
from trainables.threats import Findings, build_threat
from trainables.training import loop
from trainables.trial.context import build_context
from trainables.trial.settings import DataSpec, ModelSpec
from trainables.trial.spec import TrialSpec, spec_from_canonical
from trainables.trial.stages import run_trial

TRAINED = "it takes part in the training, and they are kept as they are"


def given_spec(place: str, *defenses: str, threats: tuple[str, ...] = ()) -> TrialSpec:
    """Return the spec of defenses on a file's weights, which saw none of the digits."""
    spec = spec_of(
        *(build_defense(name, {}, radius=EPS) for name in defenses),
        threats=[build_threat(name, {}, radius=EPS) for name in threats],
        model=given(place),
    )
    return replace(spec, data=replace(spec.data, trained_on=NOTHING))


def test_they_are_measured_as_a_plain_loop_does_and_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train", None)  # would fail
    spec = given_spec(checkpoint(tmp_path), threats=("cost", "membership", "backdoor"))
    record = run_trial(spec, ArtefactStore(tmp_path / "store"), device=CPU)
    assert record.status == "completed", record.error
    held_out = context_of(spec, tmp_path / "other").held_out
    with torch.no_grad():
        right = int((network()(held_out.images()).argmax(1) == held_out.labels).sum())
    accuracy = record.metrics["clean_accuracy"]
    assert isinstance(accuracy, Measured) and accuracy.n == len(held_out)
    assert accuracy.value == right / len(held_out)
    assert record.metrics["training_seconds"] == Measured(0.0, 0.0, 0.0, 0)
    assert record.curves == {}
    assert record.notes["model"] == [
        "its weights were given and are kept as they are: nothing was trained"
    ]
    for name in ("generalization_gap", "membership_auc", "backdoor_success_rate"):
        assert isinstance(record.metrics[name], Missing), name
    assert set(record.notes["missing"]) == {"membership", "backdoor"}
    assert "trained on none of these images" in record.notes["missing"]["membership"]


def test_no_defense_changes_a_parameter(tmp_path: Path) -> None:
    spec = given_spec(checkpoint(tmp_path), "randomized_network", "temperature")
    ctx = context_of(spec, tmp_path / "store")
    trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    before = trained.weights_sha256
    deployed = ctx.deploy(spec.stack, trained.model)
    assert same_weights(trained.model, network())
    assert deployed.stochastic
    again = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    assert again.weights_sha256 == before and again.seconds == ()


def test_a_weight_that_changes_fails_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(predictor: Predictor, members: object, ctx: object, *, curves: object) -> Findings:
        with torch.no_grad():
            next(predictor.model.parameters()).add_(1e-3)
        return Findings(metrics={}, outcomes={"clean_accuracy": torch.ones(1, dtype=torch.bool)})

    monkeypatch.setattr("trainables.threats.clean.measure_clean", broken)
    spec = given_spec(checkpoint(tmp_path))
    record = run_trial(spec, ArtefactStore(tmp_path / "store"), device=CPU)
    assert record.status == "failed"
    assert record.error is not None and "changed the weights that were given" in record.error


def test_another_network_is_never_taken_for_theirs(tmp_path: Path) -> None:
    spec = given_spec(checkpoint(tmp_path))
    ctx = context_of(spec, tmp_path / "store")
    for ask in (
        lambda: ctx.train(spec.stack, ctx.pools.train, 1),
        lambda: ctx.train(spec.stack, ctx.pools.test, 0),
        lambda: ctx.twin(seed=1),
    ):
        with pytest.raises(InputError, match="nothing trains another network like theirs"):
            ask()
    surrogate = ctx.train(build_stack([]), ctx.pools.train, 1, role="surrogate", deployed=False)
    assert len(surrogate.seconds) == spec.training.epochs
    assert not same_weights(surrogate.model, network())


def test_which_defenses_given_weights_carry_is_declared() -> None:
    carried = {name for name, found in DEFENSES.items() if not found.on_given_weights()}
    assert carried == {
        "none", "temperature", "randomized_smoothing", "input_transformation", "denoiser",
        "diffusion_purification", "mahalanobis_detector", "energy_detector", "confidence_masking",
        "feature_squeezing", "randomized_network",
    }  # fmt: skip
    assert DEFENSES["trades"].on_given_weights() == TRAINED
    assert "fine-tunes" in DEFENSES["ft_sam"].on_given_weights()
    assert "further members" in DEFENSES["ensemble"].on_given_weights()


@pytest.mark.parametrize("name", ["trades", "spectral_signatures", "fine_pruning", "ensemble"])
def test_defenses_that_train_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be put on given weights: "):
        given_spec(checkpoint(tmp_path), name)


def test_specs_without_weights_are_what_they_were_and_others_hold_the_hash(tmp_path: Path) -> None:
    assert ModelSpec().canonical() == {"name": "small_cnn", "norm": "default"}
    assert "trained_on" not in DataSpec().canonical()
    place = checkpoint(tmp_path)
    spec = given_spec(place)
    stored = json.loads(json.dumps(spec.canonical()))
    assert spec_from_canonical(stored) == spec
    checkpoint(tmp_path, network(seed=1))
    other = given_spec(place)
    assert other.trial != spec.trial and other.model.weights == spec.model.weights
    ctx = context_of(spec, tmp_path / "store")
    with pytest.raises(InputError, match="the file changed since the run began"):
        ctx.train(spec.stack, ctx.pools.train, spec.seed)


def test_the_classes_must_be_the_data_sets(tmp_path: Path) -> None:
    state = network().state_dict()
    last = [name for name in state if name.startswith("head.")]
    for name in last:
        state[name] = torch.cat([state[name], state[name][:2]])
    torch.save(state, tmp_path / "more.pt")
    spec = given_spec(str(tmp_path / "more.pt"))
    ctx = context_of(spec, tmp_path / "store")
    with pytest.raises(InputError, match="it answers 12 classes, but the data set has 10"):
        ctx.train(spec.stack, ctx.pools.train, spec.seed)


def test_nobody_guesses_what_they_saw(tmp_path: Path) -> None:
    spec = given_spec(checkpoint(tmp_path))
    with pytest.raises(InputError, match="a test on those would flatter"):
        context_of(replace(spec, data=replace(spec.data, trained_on="")), tmp_path / "store")
    with pytest.raises(InputError, match="trained_on says what given weights saw"):
        replace(spec, model=ModelSpec())
    shipped = replace(spec, data=DataSpec(pools="deployment", trained_on=NOTHING))
    with pytest.raises(InputError, match="deployment trains a network"):
        context_of(shipped, tmp_path / "store")


def test_an_official_split_says_it_and_nothing_seen_is_held_out() -> None:
    labels = torch.arange(1000) % 10
    whole = split_pools(fake_dataset(labels, 600), "given")
    rows = {name: rows_of(getattr(whole, name)) for name in POOL_NAMES}
    assert rows["train"].tolist() == list(range(600))
    unseen = torch.cat([rows[name] for name in POOL_NAMES if name != "train"])
    assert sorted(unseen.tolist()) == list(range(600, 1000))
    assert [len(rows[name]) for name in POOL_NAMES] == [600, 80, 120, 80, 120]
    assert all(set((rows[name] % 10).tolist()) == set(range(10)) for name in POOL_NAMES)
    dataset = fake_dataset(labels, 600)
    with_validation = replace(dataset, num_validation=200)
    parted = split_pools(with_validation, "given")
    assert rows_of(parted.test).tolist() == list(range(800, 1000)), "the test set stays whole"
    assert parted.validation is not None and parted.calibration is not None
    assert (
        int(rows_of(parted.validation).max()) < 800 and int(rows_of(parted.validation).min()) > 599
    )
    with pytest.raises(InputError, match="needs 4: they are split into 4 pools"):
        split_pools(fake_dataset(torch.arange(120) % 10, 90), "given")


def test_the_training_folder_is_what_they_saw(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("test", 6)):
        class_folders(tmp_path / "photos" / part, count)
    dataset = load(tmp_path / "photos")
    place = checkpoint(tmp_path, build_model("small_cnn", dataset=dataset))
    data = DataSpec(name=f"folder:{tmp_path / 'photos'}")
    spec = replace(given_spec(place), data=data)
    ctx = build_context(spec, dataset, ArtefactStore(tmp_path / "store"), CPU)
    assert ctx.members_known and len(ctx.pools.train) == 16
    trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    assert len(trained.members) == 16 and trained.kept.tolist() == list(range(16))
    record = run_trial(spec, ArtefactStore(tmp_path / "store"), device=CPU)
    assert isinstance(record.metrics["generalization_gap"], Measured)
