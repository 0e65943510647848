"""What repairs do to backdoors in networks on the digits, and how they are deployed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import TrainedNet
from tests.defenses.toys import Rejecting
from tests.making import EPS, context_of, same_weights, spec_of, train_in
from trainables.defenses import Defense, build_defense
from trainables.defenses.prediction.ensemble import EnsemblePredictor, member_seed
from trainables.deployed.noting import deploy_noting
from trainables.deployed.predictor import Predictor
from trainables.records.value import Measured
from trainables.threats.backdoor.backdoor import Backdoor

REPAIRS = ("fine_pruning", "ft_sam")
SEEDS = (0, 1, 2)
SUCCESS, CLEAN = "backdoor_success_rate", "poisoned_clean_accuracy"


def _repair(name: str, **raw: object) -> Defense:
    return build_defense(name, raw, radius=EPS)


def _twins(folder: Path, *stack: Defense) -> dict[str, list[float]]:
    """Return success and clean accuracy of each seed's twin, which all repairs share."""
    found: dict[str, list[float]] = {SUCCESS: [], CLEAN: []}
    for seed in SEEDS:
        spec = spec_of(*stack, epochs=15, train_images=None, measured_images=None, seed=seed)
        measured = (
            Backdoor().measure(Predictor(torch.nn.Identity()), context_of(spec, folder)).metrics
        )
        for name, values in found.items():
            value = measured[name]
            assert isinstance(value, Measured)
            values.append(value.value)
    return found


@pytest.mark.slow
def test_repairs_lower_the_success_and_keep_the_accuracy(artefact_folder: Path) -> None:
    plain = _twins(artefact_folder)
    assert min(plain[SUCCESS]) >= 0.6
    for name in REPAIRS:
        repaired = _twins(artefact_folder, _repair(name))
        pairs = list(zip(plain[SUCCESS], repaired[SUCCESS], strict=True))
        assert all(after <= before for before, after in pairs), name
        assert sum(repaired[SUCCESS]) <= 0.75 * sum(plain[SUCCESS]), name
        losses = [b - a for b, a in zip(plain[CLEAN], repaired[CLEAN], strict=True)]
        assert sum(losses) / len(losses) <= 0.03, name


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_changes_a_copy_once_and_costs_its_time(name: str, tmp_path: Path) -> None:
    ctx = context_of(spec_of(_repair(name, epochs=2)), tmp_path)
    own = train_in(ctx)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    first, again = (ctx.deploy(ctx.spec.stack, own) for _ in range(2))
    assert all(torch.equal(before[key], value) for key, value in own.state_dict().items())
    assert not same_weights(own, first.model) and same_weights(first.model, again.model)
    assert not any(p.requires_grad for p in first.model.parameters())
    assert not any(module.training for module in first.model.modules())
    assert len(ctx.phases) == 2 and all(sum(seconds) > 0 for seconds in ctx.phases.values())
    assert ctx.pools.calibration is not None
    _, fitted = deploy_noting(ctx, ctx.spec.stack, own)
    assert fitted[name].values["clean_rows"] == len(ctx.pools.calibration)


def test_pruned_units_stay_pruned_in_the_fine_tuning(undefended: TrainedNet) -> None:
    repair = _repair("fine_pruning", accuracy_drop=0.1, epochs=2)
    predictor = repair.deploy(Predictor(undefended.model), undefended.ctx)
    layer = dict(predictor.model.named_modules())["stem.layer2.0"]
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    silent = (layer.weight == 0).flatten(1).all(1)
    assert 0 < int(silent.sum()) < len(silent)
    assert bool((layer.bias[silent] == 0).all())


@pytest.mark.parametrize("name", REPAIRS)
def test_the_members_of_an_ensemble_are_repaired_each(name: str, tmp_path: Path) -> None:
    ensemble = build_defense("ensemble", {"size": 2}, radius=EPS)
    ctx = context_of(spec_of(_repair(name, epochs=1), ensemble), tmp_path)
    own = train_in(ctx)
    predictor = ctx.deploy(ctx.spec.stack, own)
    assert isinstance(predictor, EnsemblePredictor)
    trained = [own, ctx.train(ctx.spec.stack, ctx.pools.train, member_seed(ctx.seed, 1)).model]
    for model, member in zip(trained, predictor.members, strict=True):
        assert not same_weights(model, member.model)
        alone = _repair(name, epochs=1).deploy(Predictor(model), ctx)
        assert same_weights(alone.model, member.model)


def test_what_stands_before_a_repair_is_refused(undefended: TrainedNet) -> None:
    wrapped = Rejecting(Predictor(undefended.model), 0.9)
    with pytest.raises(RuntimeError, match="Rejecting is deployed before it"):
        _repair("ft_sam").deploy(wrapped, undefended.ctx)


def test_a_repair_goes_with_filters_noise_and_deployments(tmp_path: Path) -> None:
    others = ("spectral_signatures", "randomized_network", "temperature")
    stack = [build_defense(each, {}, radius=EPS) for each in others]
    ctx = context_of(spec_of(*stack, _repair("fine_pruning", epochs=1)), tmp_path)
    predictor = ctx.deploy(ctx.spec.stack, train_in(ctx))
    assert predictor.stochastic
    assert [defense.slot for defense in ctx.spec.stack] == [
        "data_filter", "repair", "architecture", "deployment",
    ]  # fmt: skip
