"""What every defense keeps to, over one table with a row for each."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, context_of, same_weights, spec_of
from trainables.defenses import DEFENSES, SLOTS, Defense, Stack, View, build_defense
from trainables.defenses.defense import Guarantee
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.parameters import declared_parameters, describe_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A defense with settings under which it has an effect."""

    name: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = True
    """Whether it has a part in the training."""
    cut: bool = True
    """Whether its views stay within [0, 1]; noise that a certificate is about may not be cut."""

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.raw.values())])

    def build(self) -> Defense:
        """Build it as from a user's words."""
        return build_defense(self.name, self.raw, radius=EPS)


ROWS = [
    Row(name="none", trains=False),
    Row(name="spectral_signatures"),
    Row(name="spectral_signatures", raw={"expected_rate": 0.05, "centred": False}),
    Row(name="activation_clustering"),
    Row(name="fgsm_adversarial_training"),
    Row(name="fgsm_adversarial_training", raw={"eps": ["4/255", "1 radius"], "random_start": True}),
    Row(name="fgsm_adversarial_training", raw={"fraction": 1}),
    Row(name="fgsm_adversarial_training", raw={"detect_overfitting": False}),
    Row(name="pgd_adversarial_training", raw={"eps": "1 radius", "steps": 2}),
    Row(
        name="pgd_adversarial_training",
        raw={"eps": ["4/255", "1 radius"], "step_size": 0.01, "crafting_mode": "train"},
    ),
    Row(name="trades", raw={"eps": "1 radius", "steps": 2}),
    Row(name="static_adversarial_finetuning", raw={"num_examples": 100, "epochs": 2}),
    Row(name="static_adversarial_finetuning", raw={"attack": "pgd", "epochs": 1, "steps": 2}),
    Row(name="dynamic_mixed_batch"),
    Row(name="dynamic_mixed_batch", raw={"attack": "bim", "eps": "1 radius", "fraction": 0.3}),
    Row(name="dp_sgd"),
    Row(name="dp_sgd", raw={"noise_multiplier": 0, "max_grad_norm": 5, "dp_delta": 1e-5}),
    Row(name="label_smoothing"),
    Row(name="label_smoothing", raw={"alpha": "-0.05"}),
    Row(name="mixup"),
    Row(name="gradient_regularization", raw={"lam": 2}),
    Row(name="early_stopping"),
    Row(name="fine_pruning", raw={"epochs": 1}, trains=False),
    Row(name="fine_pruning", raw={"accuracy_drop": 0.2, "epochs": 0}, trains=False),
    Row(name="ft_sam", raw={"epochs": 1}, trains=False),
    Row(name="ft_sam", raw={"rho": 0.1, "epochs": 2}, trains=False),
    Row(name="temperature", trains=False),
    Row(name="temperature", raw={"T": "fit"}, trains=False),
    Row(name="confidence_masking", trains=False),
    Row(name="confidence_masking", raw={"top_k": 1, "digits": 0}, trains=False),
    Row(name="randomized_network", raw={"p": 0.2, "draws": 3}),
    Row(name="randomized_network", raw={"draws": 1, "places": ["layer1", "features"]}),
    Row(name="pixeldp", raw={"draws": 20}),
    Row(name="pixeldp", raw={"placement": "image", "attack_bound": 0.3, "draws": 5}),
    Row(name="pixeldp", raw={"placement": "layer2", "sensitivity": "measured", "draws": 20}),
    Row(name="ensemble", raw={"size": 2}, trains=False),
    Row(name="input_transformation", raw={"kind": "bit_depth", "bits": 2}, trains=False),
    Row(name="input_transformation", raw={"kind": "median"}, trains=False),
    Row(name="input_transformation", raw={"kind": "jpeg", "quality": 50}, trains=False),
    Row(name="feature_squeezing", trains=False),
    Row(name="denoiser", raw={"epochs": 1}, trains=False),
    Row(name="denoiser", raw={"sigma": "0.5 radius", "epochs": 1}, trains=False),
    Row(name="diffusion_purification", raw={"epochs": 1}, trains=False),
    Row(
        name="diffusion_purification",
        raw={"t": 0.3, "steps": 2, "draws": 1, "epochs": 1},
        trains=False,
    ),
    Row(name="mahalanobis_detector", trains=False),
    Row(name="energy_detector", raw={"T": 2, "false_positive_rate": 0.1}, trains=False),
    Row(name="randomized_smoothing", raw={"draws": 50}, cut=False),
    Row(name="randomized_smoothing", raw={"sigma": 1, "n": 200, "draws": 20}, cut=False),
]
every_defense = pytest.mark.parametrize("row", ROWS, ids=str)
LIMITS = [
    (name, parameter, value)
    for name, owner in DEFENSES.items()
    for parameter, declared in declared_parameters(owner).items()
    if declared.kind in ("int", "float")
    for value in (
        None if declared.low is None else declared.low - 1,
        None if declared.high is None else declared.high + 1,
        float("nan"),
        "many",
    )
    if value is not None
]


def test_every_defense_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(DEFENSES)


def test_every_defense_says_what_it_is() -> None:
    for name, found in DEFENSES.items():
        assert found.name == name
        assert found.meaning.endswith(".")
        assert found.source or name == "none"
        assert found.guarantee in get_args(Guarantee)
        assert found.slot in SLOTS or name == "none"
        assert set(found.refuses) <= set(DEFENSES)
        assert all(row["meaning"] for row in describe_parameters(found).values())


@pytest.mark.parametrize("name", DEFENSES)
def test_every_defense_has_defaults_and_every_number_has_limits(name: str) -> None:
    build_defense(name, {}, radius=EPS)
    for parameter, declared in declared_parameters(DEFENSES[name]).items():
        if declared.kind in ("int", "float"):
            assert declared.low is not None and declared.high is not None, parameter


@pytest.mark.parametrize(("name", "parameter", "value"), LIMITS)
def test_a_parameter_out_of_its_range_is_refused(
    name: str, parameter: str, value: float | str
) -> None:
    with pytest.raises(InputError, match=f"{name}: {parameter}"):
        build_defense(name, {parameter: value}, radius=EPS)
    with pytest.raises(InputError, match=f"{name}: {parameter}"):
        DEFENSES[name](**{parameter: value})


@pytest.mark.parametrize("name", DEFENSES)
def test_an_unknown_parameter_names_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: unknown parameter 'nope'; known: "):
        build_defense(name, {"nope": 1}, radius=EPS)


@every_defense
def test_the_canonical_form_builds_the_same_defense(row: Row) -> None:
    defense = row.build()
    plain = json.loads(json.dumps(defense.canonical()))
    name = plain.pop("name")
    assert build_defense(name, plain, radius=0.77) == defense


@every_defense
def test_a_defense_is_frozen_and_comparable(row: Row) -> None:
    assert row.build() == row.build()
    assert hash(row.build()) == hash(row.build())
    with pytest.raises(AttributeError):
        row.build().lam = 1.0  # type: ignore[attr-defined]


@every_defense
def test_what_only_changes_the_deployment_trains_nothing(row: Row, tmp_path: Path) -> None:
    assert row.build().shapes_training == row.trains
    ctx = context_of(spec_of(row.build()), tmp_path)
    keys = {ctx.train(stack, ctx.pools.train, 0).key for stack in (Stack(), ctx.spec.stack)}
    assert len(keys) == (2 if row.trains else 1)


@every_defense
def test_the_same_training_twice_is_bit_for_bit_the_same(row: Row, tmp_path: Path) -> None:
    trained = []
    for folder in ("one", "two"):
        ctx = context_of(spec_of(row.build(), epochs=2), tmp_path / folder)
        trained.append(ctx.train(ctx.spec.stack, ctx.pools.train, 0))
    assert same_weights(trained[0].model, trained[1].model)
    assert trained[0].curves == trained[1].curves


@every_defense
def test_views_keep_shapes_weights_and_mode(row: Row, undefended: TrainedNet) -> None:
    model, x = undefended.model, undefended.x[:16]
    model.train()
    clean = View(x, F.one_hot(undefended.y[:16], 10).float(), 1.0)
    views = row.build().views(model, [clean], torch.Generator().manual_seed(0))
    assert model.training
    model.eval()
    assert sum(view.weight for view in views) == pytest.approx(1.0)
    for view in views:
        assert view.x.shape == x.shape and not view.x.requires_grad
        assert row.cut == (float(view.x.min()) >= 0 and float(view.x.max()) <= 1)
        torch.testing.assert_close(view.target.sum(1), torch.ones(16))
    assert torch.equal(clean.x, undefended.x[:16]) and clean.weight == 1.0


@every_defense
def test_the_deployed_predictor_gives_probabilities(row: Row, undefended: TrainedNet) -> None:
    model = row.build().modify_model(copy.deepcopy(undefended.model), undefended.ctx)
    predictor = row.build().deploy(Predictor(model), undefended.ctx)
    x, generator = undefended.x[:50], torch.Generator().manual_seed(0)
    found = predictor.predict(x, generator)
    assert found.label.shape == (50,) and found.log_probabilities.shape == (50, 10)
    torch.testing.assert_close(found.log_probabilities.exp().sum(1), torch.ones(50))
    assert torch.equal(predictor.probabilities(x), predictor.probabilities(x))
    assert predictor.forward_passes_per_prediction >= 1
    assert predictor.surfaces()
    for surface in predictor.surfaces():
        scores = surface.scores(x.clone().requires_grad_(True), generator)
        assert scores.shape == (50, 10) and scores.requires_grad
