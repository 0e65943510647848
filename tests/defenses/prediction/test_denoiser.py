import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, context_of, spec_of, train_in
from trainables.defenses.detectors.detector import DetectingPredictor
from trainables.defenses.prediction.denoiser import Denoiser, DenoisingPredictor, denoise
from trainables.deployed.predictor import Predictor


@pytest.fixture(scope="module")
def denoising(undefended: TrainedNet) -> DenoisingPredictor:
    """Deploy the undefended net behind a denoiser that was trained for a moment."""
    torch.set_num_threads(1)
    found = Denoiser(epochs=15).deploy(Predictor(undefended.model), undefended.ctx)
    assert isinstance(found, DenoisingPredictor)
    return found


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noises(shape: torch.Size) -> list[Tensor]:
    gaussian = EPS * torch.randn(shape, generator=_generator())
    return [gaussian, EPS * 3**0.5 * (2 * torch.rand(shape, generator=_generator()) - 1)]


def test_it_takes_noise_off_held_out_images(
    denoising: DenoisingPredictor, undefended: TrainedNet
) -> None:
    x = undefended.x
    for noise in _noises(x.shape):
        left = F.mse_loss(denoise(denoising.network, x + noise), x)
        assert float(left) < 0.5 * float(noise.square().mean())
    assert float(F.mse_loss(denoise(denoising.network, x), x)) < 0.2 * EPS**2


def test_noisy_images_are_classified_better_and_clean_ones_about_as_well(
    denoising: DenoisingPredictor, undefended: TrainedNet
) -> None:
    x, y, plain = undefended.x, undefended.y, Predictor(undefended.model)

    def right(predictor: Predictor, images: Tensor) -> float:
        return float((predictor.predict(images, _generator()).label == y).double().mean())

    noisy = x + 2 * _noises(x.shape)[0]
    assert right(denoising, noisy) > right(plain, noisy) + 0.02
    assert right(denoising, x) > right(plain, x) - 0.03


def test_the_surfaces_are_the_full_gradient_and_the_identity_s(
    denoising: DenoisingPredictor, undefended: TrainedNet
) -> None:
    full, straight = denoising.surfaces()
    assert (full.kind, straight.kind) == ("exact", "bpda")
    x = undefended.x[:8].clone().requires_grad_(True)
    expected = undefended.model(denoise(denoising.network, x))
    gradients = []
    for surface in (full, straight):
        scores = surface.scores(x, _generator())
        torch.testing.assert_close(scores, expected)
        torch.testing.assert_close(
            scores.log_softmax(1), denoising.predict(x, _generator()).log_probabilities
        )
        (gradient,) = torch.autograd.grad(scores[:, 3].sum(), x, retain_graph=True)
        gradients.append(gradient)
    assert all(bool((gradient != 0).flatten(1).any(1).all()) for gradient in gradients)
    assert not torch.allclose(gradients[0], gradients[1])
    restored = denoise(denoising.network, x).detach().requires_grad_(True)
    (at_restored,) = torch.autograd.grad(undefended.model(restored)[:, 3].sum(), restored)
    torch.testing.assert_close(gradients[1], at_restored)


def test_the_full_gradient_is_that_of_finite_differences(
    denoising: DenoisingPredictor, undefended: TrainedNet
) -> None:
    network = copy.deepcopy(denoising.network).double()
    model = Predictor(copy.deepcopy(undefended.model).double())
    surface = DenoisingPredictor(model, network).surfaces()[0]
    x = undefended.x[:4].double().requires_grad_(True)
    direction = torch.randn(x.shape, generator=_generator(), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(surface.scores(x, _generator())[:, 0].sum(), x)
    x, step = x.detach(), 1e-6 * direction
    ahead, behind = (surface.scores(x + d, _generator())[:, 0].sum() for d in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-6)


def test_it_says_what_it_costs_and_certifies_nothing(denoising: DenoisingPredictor) -> None:
    assert denoising.forward_passes_per_prediction == 2
    assert not denoising.stochastic and not denoising.rejects
    assert denoising.certify(torch.zeros(1, 1, 8, 8), _generator()) is None


def test_a_detector_behind_it_sees_denoised_images(
    denoising: DenoisingPredictor, undefended: TrainedNet
) -> None:
    def brightness(x: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        return x.mean((1, 2, 3))

    watched = DetectingPredictor(denoising.inner, brightness, 0.3, passes=0)
    predictor, x = DenoisingPredictor(watched, denoising.network), undefended.x
    restored = denoise(denoising.network, x)
    assert predictor.rejects
    for surface in predictor.surfaces():
        assert surface.reject_margin is not None
        found = surface.reject_margin(x, _generator())
        torch.testing.assert_close(found, brightness(restored, _generator()) - 0.3)


def test_without_a_sigma_it_is_the_standard_radius(tmp_path: Path) -> None:
    ctx = context_of(spec_of(), tmp_path)
    plain, keys = Predictor(train_in(ctx)), []
    for sigma in (None, EPS, EPS / 2):
        Denoiser(sigma=sigma, epochs=1).deploy(plain, ctx)
        keys.append(ctx.used["denoiser"])
    assert keys[0] == keys[1] != keys[2]


def test_trials_with_other_classifiers_share_one_denoiser(tmp_path: Path) -> None:
    keys = set()
    for epochs in (1, 2):
        ctx = context_of(spec_of(epochs=epochs), tmp_path)
        Denoiser(epochs=1).deploy(Predictor(train_in(ctx)), ctx)
        keys.add(ctx.used["denoiser"])
    assert len(keys) == 1
