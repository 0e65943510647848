import copy
from pathlib import Path

import pytest
import torch

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy, context_of, spec_of, train_in
from trainables.attacks.pgd import pgd
from trainables.defenses.prediction import image_network
from trainables.defenses.prediction.diffusion_process import noise_prediction_loss
from trainables.defenses.prediction.diffusion_purification import (
    DiffusionPurification,
    PurifyingPredictor,
)
from trainables.deployed.predictor import Predictor
from trainables.training.modes import seeded


@pytest.fixture(scope="module")
def purifying(undefended: TrainedNet) -> PurifyingPredictor:
    """Deploy the undefended net behind a diffusion model that was trained for seconds."""
    torch.set_num_threads(1)
    return _deploy(DiffusionPurification(epochs=30), undefended)


def _deploy(defense: DiffusionPurification, net: TrainedNet) -> PurifyingPredictor:
    found = defense.deploy(Predictor(net.model), net.ctx)
    assert isinstance(found, PurifyingPredictor)
    return found


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_of_the_diffusion_model_falls(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    x = undefended.x
    after = float(noise_prediction_loss(purifying.network, x, _generator()))
    with seeded(0, x.device):
        network = copy.deepcopy(purifying.network)
        for weights in network.leave[-1].parameters():
            weights.zero_()  # as it was before: no noise is predicted
    before = float(noise_prediction_loss(network, x, _generator()))
    assert before == pytest.approx(1, abs=0.05)
    assert after < 0.45


def test_purified_images_are_still_classified_right(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    x, y = undefended.x, undefended.y
    found = purifying.predict(x, _generator())
    right = float((found.label == y).double().mean())
    assert right > accuracy(undefended.model, x, y) - 0.05


def test_attacks_on_the_plain_classifier_are_purified_away(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    model, x, y = undefended.model, undefended.x, undefended.y
    attacked = pgd(model, x, y, eps=EPS, generator=_generator()).detach()
    found = purifying.predict(attacked, _generator())
    assert accuracy(model, attacked, y) < 0.5
    assert float((found.label == y).double().mean()) > 0.75


def test_a_small_time_gives_the_image_back(undefended: TrainedNet) -> None:
    x = undefended.x[:50]
    predictor = _deploy(DiffusionPurification(t=0.001, epochs=30), undefended)
    assert float((predictor.purify(x, _generator()) - x).abs().max()) < 0.05


def test_a_prediction_hangs_on_the_generator_alone(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    x, before = undefended.x[:20], torch.get_rng_state()
    first, same, other = (
        purifying.predict(x, _generator(seed)).log_probabilities for seed in (0, 0, 1)
    )
    assert torch.equal(first, same) and not torch.allclose(first, other)
    assert torch.equal(purifying.probabilities(x), purifying.probabilities(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_more_draws_make_predictions_steadier(undefended: TrainedNet) -> None:
    x, spreads = undefended.x[:20], []
    for draws in (1, 16):
        predictor = _deploy(DiffusionPurification(t=0.3, draws=draws, epochs=30), undefended)
        answers = [predictor.predict(x, _generator(s)).log_probabilities.exp() for s in range(6)]
        spreads.append(float(torch.stack(answers).var(0).mean()))
    assert spreads[1] < 0.25 * spreads[0]  # of independent draws a sixteenth


def test_the_scores_are_the_log_of_the_mean_softmax(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    scores = purifying.scores(undefended.x[:20], _generator())
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(20))
    found = purifying.predict(undefended.x[:20], _generator()).log_probabilities
    torch.testing.assert_close(scores, found)


def test_the_surfaces_are_the_full_gradient_and_the_identity_s(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    full, straight = purifying.surfaces()
    assert (full.kind, straight.kind) == ("eot", "bpda")
    assert full.draws == straight.draws == 4
    x, gradients = undefended.x[:6].clone().requires_grad_(True), []
    for surface in (full, straight):
        scores = surface.scores(x, _generator())
        torch.testing.assert_close(scores, purifying.scores(x, _generator()))
        (gradient,) = torch.autograd.grad(scores[:, 3].sum(), x)
        assert bool(gradient.isfinite().all())
        assert bool((gradient != 0).flatten(1).any(1).all())
        gradients.append(gradient)
    assert not torch.allclose(gradients[0], gradients[1])


def test_the_full_gradient_is_that_of_finite_differences(
    purifying: PurifyingPredictor, undefended: TrainedNet
) -> None:
    predictor = PurifyingPredictor(
        Predictor(copy.deepcopy(undefended.model).double()),
        copy.deepcopy(purifying.network).double(),
        t=0.2,
        steps=3,
        draws=2,
    )
    surface = predictor.surfaces()[0]
    x = undefended.x[:4].double().requires_grad_(True)
    direction = torch.randn(x.shape, generator=_generator(), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(surface.scores(x, _generator())[:, 0].sum(), x)
    x, step = x.detach(), 1e-6 * direction
    ahead, behind = (surface.scores(x + d, _generator())[:, 0].sum() for d in (step, -step))
    expected = float(ahead - behind) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_it_says_what_it_costs_and_certifies_nothing(purifying: PurifyingPredictor) -> None:
    assert purifying.stochastic and not purifying.rejects
    assert purifying.forward_passes_per_prediction == 4 * (5 + 1)
    assert purifying.max_screen_points == 64
    assert purifying.certify(torch.zeros(1, 1, 8, 8), _generator()) is None


def test_trials_with_other_classifiers_and_times_share_one_diffusion_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings, fit = [], image_network._fit

    def counted(*arguments: object) -> object:
        trainings.append(arguments)
        return fit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(image_network, "_fit", counted)
    for epochs, t in ((1, 0.1), (2, 0.1), (2, 0.3)):
        ctx = context_of(spec_of(epochs=epochs), tmp_path)
        model = train_in(ctx)
        DiffusionPurification(t=t, epochs=1).deploy(Predictor(model), ctx)
        assert ctx.used["diffusion_model"] in ctx.phases
    assert len(trainings) == 1
