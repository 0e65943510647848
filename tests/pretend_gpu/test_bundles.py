"""Bundles of what was trained on the pretended GPU, loaded on both devices."""

from pathlib import Path

import pytest
import torch

from results.bundle import load
from results.bundle.contents import Deployed
from results.bundle.reference import differences
from results.bundle.writing import write
from tests.making import EPS
from tests.pretend_gpu.cases import SMALL, alike, answer, assert_equal, device, tiny
from tests.results.bundles import CARD_PLAIN
from trainables.artefacts import ArtefactStore
from trainables.defenses import build_defense
from trainables.deployment import deploy_noting
from trainables.trial import prepare_trial

pytestmark = pytest.mark.pretend_gpu

STACKS = [
    ("none",),
    ("temperature",),
    ("confidence_masking",),
    ("ensemble",),
    ("input_transformation",),
    ("denoiser",),
    ("mahalanobis_detector",),
    ("randomized_smoothing",),
    ("pixeldp",),
    ("spectral_signatures", "label_smoothing", "gradient_regularization", "temperature"),
]


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_a_bundle_of_the_device_answers_alike_on_both(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    fitted_temperature = {"temperature": {"T": "fit"}}
    settings = {**SMALL, **fitted_temperature}
    stack = [build_defense(name, settings.get(name, {}), radius=EPS) for name in names]
    spec = tiny(*stack, measured_images=40)
    ctx = prepare_trial(spec, ArtefactStore(tmp_path / "store"), device=device())
    trained = ctx.train(spec.stack, ctx.pools.train, spec.seed)
    weights = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    predictor, noted = deploy_noting(ctx, spec.stack, trained.model)
    deployed = Deployed(spec=ctx.spec, dataset=ctx.dataset, weights=weights, fitted=noted)
    write(tmp_path / "bundle", deployed, ctx.pools.test, lambda facts: CARD_PLAIN, program=False)
    on_cpu = load(tmp_path / "bundle")
    on_device = load(tmp_path / "bundle", device=torch.device("pretend"))
    assert on_device.device == device()
    assert max(differences(on_cpu.predictor, on_cpu.reference).values()) <= 1e-6
    original = answer(predictor, ctx).log_probabilities
    assert torch.equal(answer(on_device.predictor, ctx).log_probabilities, original)
    x = on_cpu.reference.images
    with alike():
        assert_equal(on_device.probabilities(x.to(device())), on_cpu.probabilities(x))
