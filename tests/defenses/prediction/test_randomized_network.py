import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.making import EPS, context_of, same_weights, spec_of, train_in
from trainables.attacks.pgd import pgd
from trainables.defenses.prediction.randomized_network import (
    RandomDropout,
    RandomizedNetwork,
    RandomizedPredictor,
)
from trainables.deployed import averaging
from trainables.deployed.averaging import log_mean_softmax_of_draws, of_copies
from trainables.deployed.predictor import Predictor
from trainables.errors import InputError
from trainables.models import build_model
from trainables.training.modes import frozen_for_attack, seeded
from trainables.trial.context import TrialContext
from trainables.trial.settings import ModelSpec


def _seed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noisy(ctx: TrialContext, model: nn.Module, p: float, draws: int) -> RandomizedPredictor:
    """Deploy a trained model with dropout put into a copy of it."""
    with seeded(0, ctx.device):
        copy = build_model(ctx.spec.model.name, dataset=ctx.dataset)
    copy.load_state_dict(model.state_dict())
    defense = RandomizedNetwork(p=p, draws=draws)
    deployed = defense.deploy(Predictor(defense.modify_model(copy, ctx)), ctx)
    assert isinstance(deployed, RandomizedPredictor)
    return deployed


def _plain_loop(predictor: RandomizedPredictor, x: Tensor, draws: int, seed: int) -> Tensor:
    generator = _seed(seed)
    with torch.no_grad():
        return torch.stack(
            [predictor.draw(x, generator).double().softmax(1) for _ in range(draws)]
        ).mean(0)


def test_without_dropout_the_plain_model_is_deployed(undefended: TrainedNet) -> None:
    ctx, model, defense = undefended.ctx, undefended.model, RandomizedNetwork(p=0.0)
    before = [type(module) for module in model.modules()]
    assert defense.modify_model(model, ctx) is model
    assert [type(module) for module in model.modules()] == before
    plain = Predictor(model)
    deployed = defense.deploy(plain, ctx)
    assert not deployed.stochastic and deployed.forward_passes_per_prediction == 1
    found = deployed.predict(undefended.x, _seed()).log_probabilities
    assert torch.equal(found, model(undefended.x).log_softmax(1))


def test_a_mask_keeps_its_share_and_the_mean_of_what_it_masks() -> None:
    dropout, x = RandomDropout(0.3).eval(), torch.ones(50, 7, 9, 11)
    assert torch.equal(dropout(x), x)
    dropout.generator = _seed()
    masked = dropout(x)
    kept = masked > 0
    error = math.sqrt(0.3 * 0.7 / x.numel())
    assert float(kept.double().mean()) == pytest.approx(0.7, abs=4 * error)
    torch.testing.assert_close(masked[kept], torch.full_like(masked[kept], 1 / 0.7))
    # Neighbours share a draw of 64 bits: no place in it may be favoured, nor hang on another.
    quarters = kept.flatten()[: x.numel() // 4 * 4].view(-1, 4).double()
    assert torch.allclose(quarters.mean(0), torch.tensor(0.7, dtype=torch.float64), atol=8 * error)
    correlation = torch.corrcoef(quarters.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 4 * math.sqrt(4 / x.numel())


def test_in_training_it_is_the_dropout_of_torch() -> None:
    x = torch.randn(20, 5)
    with seeded(3, torch.device("cpu")):
        ours = RandomDropout(0.4)(x)
    with seeded(3, torch.device("cpu")):
        assert torch.equal(ours, nn.Dropout(0.4)(x))


def test_weights_keep_their_names_and_places_are_chosen_and_checked(undefended: TrainedNet) -> None:
    ctx = undefended.ctx
    for places, count in ((("all",), 3), (("features",), 1), (("layer1", "layer2"), 2)):
        model = build_model("small_cnn", dataset=ctx.dataset)
        names = list(model.state_dict())
        RandomizedNetwork(places=places).modify_model(model, ctx)
        assert list(model.state_dict()) == names
        assert sum(isinstance(module, RandomDropout) for module in model.modules()) == count
    for wrong in ("image", "layer9"):
        with pytest.raises(InputError, match=f"'{wrong}'; known: all, layer1, layer2, features"):
            RandomizedNetwork(places=(wrong,)).modify_model(model, ctx)


def test_equal_seeds_agree_others_differ_and_the_global_generator_is_left(
    undefended: TrainedNet,
) -> None:
    predictor = _noisy(undefended.ctx, undefended.model, 0.5, 1)
    before = torch.get_rng_state()
    first, again, other = (
        predictor.predict(undefended.x, _seed(seed)).log_probabilities for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert predictor.stochastic
    assert all(dropout.generator is None for dropout in predictor.dropouts)
    twice = predictor.scores(undefended.x[:1].repeat(2, 1, 1, 1), _seed())
    assert not torch.equal(twice[0], twice[1]), "images of a batch must not share their noise"
    plain = undefended.model(undefended.x)
    assert torch.equal(predictor.model(undefended.x), plain), "no noise without a generator"


@pytest.mark.parametrize("held", [2**20, 0])
@pytest.mark.parametrize(("count", "draws"), [(5, 1), (5, 7), (200, 5), (600, 2)])
def test_the_mean_softmax_and_its_gradient_are_those_of_a_plain_loop(
    count: int, draws: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averaging, "_HELD_PIXELS", held)
    weight, seen = torch.randn(10, 4, generator=_seed()), []

    def answer(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(len(x), 4, generator=generator)
        seen.append(len(x))
        return (x.flatten(1) * noise) @ weight.T * 20

    def by_hand(x: Tensor, generator: torch.Generator) -> Tensor:
        at_once = max(1, 512 // count)
        parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
        seeds = torch.randint(2**62, (len(parts),), generator=generator).tolist()
        probabilities = []
        for part, seed in zip(parts, seeds, strict=True):
            noise = torch.rand(part * count, 4, generator=_seed(seed)).view(part, count, 4)
            probabilities += [((x.flatten(1) * n) @ weight.T * 20).softmax(1) for n in noise]
        return torch.stack(probabilities).mean(0).log()

    x = torch.rand(count, 1, 2, 2, generator=_seed(1)).requires_grad_(True)
    found = log_mean_softmax_of_draws(of_copies(answer), x, _seed(5), draws=draws)
    expected = by_hand(x, _seed(5))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        *(torch.autograd.grad(scores[:, 0].sum(), x)[0] for scores in (found, expected)),
        atol=1e-3,
        rtol=1e-3,
    )
    assert max(seen) <= max(512, count) and sum(seen) == count * draws * (2 if held == 0 else 1)


def test_many_draws_come_near_the_mean_of_a_loop_of_draws(undefended: TrainedNet) -> None:
    x, draws = undefended.x[:8], 400
    predictor = _noisy(undefended.ctx, undefended.model, 0.5, draws)
    found = predictor.predict(x, _seed())
    loop = _plain_loop(predictor, x, draws, seed=1)
    # The difference of two means of values in [0, 1]: at most 0.5 sqrt(2 / draws) a deviation.
    assert float((found.log_probabilities.exp() - loop).abs().max()) < 5 * 0.5 * math.sqrt(2 / 400)
    assert torch.equal(found.label, found.log_probabilities.argmax(1))
    assert float((found.log_probabilities.exp() - predictor.model(x).softmax(1)).abs().max()) > 0.01
    assert predictor.forward_passes_per_prediction == draws


def test_the_eot_gradient_comes_near_the_mean_of_many_single_draws(undefended: TrainedNet) -> None:
    """Of log mean p the gradient is (mean of grad p) / (mean of p)."""
    with seeded(0, torch.device("cpu")):  # untrained: no softmax saturates, so that few draws do
        model = build_model("small_cnn", dataset=undefended.ctx.dataset)
    predictor = _noisy(undefended.ctx, model, 0.3, 1)
    x, y = undefended.x[:10], undefended.y[:10, None]

    def gradient(seed: int, draws: int) -> Tensor:
        image = x.clone().requires_grad_(True)
        scores = log_mean_softmax_of_draws(
            of_copies(predictor.draw), image, _seed(seed), draws=draws
        )
        return torch.autograd.grad(scores.gather(1, y).sum(), image)[0].flatten(1)

    top, bottom, generator = torch.zeros(10, 64), torch.zeros(10, 1), _seed(9)
    for _ in range(400):
        image = x.clone().requires_grad_(True)
        probability = predictor.draw(image, generator).softmax(1).gather(1, y)
        top += torch.autograd.grad(probability.sum(), image)[0].flatten(1)
        bottom += probability.detach()
    expected = top / bottom
    errors = [
        float(((gradient(seed, draws) - expected).norm(dim=1) / expected.norm(dim=1)).median())
        for seed, draws in ((1, 1), (2, 400))
    ]
    assert errors[1] < 0.2 and 5 * errors[1] < errors[0]


def test_surfaces_average_ten_to_twenty_draws_and_show_the_mean_network(
    undefended: TrainedNet,
) -> None:
    for draws, declared in ((1, 10), (15, 15), (100, 20)):
        predictor = _noisy(undefended.ctx, undefended.model, 0.3, draws)
        eot, mean = predictor.surfaces()
        assert (eot.kind, eot.draws, mean.kind) == ("eot", declared, "exact")
        expected = log_mean_softmax_of_draws(
            of_copies(predictor.draw), undefended.x, _seed(4), draws=declared
        )
        assert torch.equal(eot.scores(undefended.x, _seed(4)), expected)
        assert torch.equal(mean.scores(undefended.x, _seed()), undefended.model(undefended.x))


def test_attacks_on_both_surfaces_break_the_deployed_model(undefended: TrainedNet) -> None:
    predictor = _noisy(undefended.ctx, undefended.model, 0.2, 10)
    x, y = undefended.x[:60], undefended.y[:60]
    clean = float((predictor.predict(x, _seed()).label == y).double().mean())
    for surface in predictor.surfaces():
        generator = _seed()
        attacked = pgd(
            lambda images, s=surface, g=generator: s.scores(images, g),  # type: ignore[misc]
            x, y, eps=EPS, steps=10, early_stop=False, generator=generator,
        )  # fmt: skip
        robust = float((predictor.predict(attacked, generator).label == y).double().mean())
        assert robust < clean - 0.4


def test_batch_norm_stays_in_eval_mode_and_training_uses_the_noise(tmp_path: Path) -> None:
    """With batch statistics, an image's answer would hang on the batch that it came in."""
    trained = {}
    for p in (0.0, 0.4):
        defense = RandomizedNetwork(p=p, draws=2)
        ctx = context_of(spec_of(defense, model=ModelSpec(name="cnn_bn")), tmp_path)
        model = trained[p] = train_in(ctx)
        predictor = ctx.deploy(ctx.spec.stack, model)
        running = {k: v.clone() for k, v in model.state_dict().items()}
        predictor.predict(ctx.pools.test.images()[:40], _seed())
        assert not any(module.training for module in model.modules())
        assert all(torch.equal(v, running[k]) for k, v in model.state_dict().items())
    assert not same_weights(trained[0.0], trained[0.4])


def test_crafting_inside_a_training_sees_no_noise_and_leaves_the_modes(
    undefended: TrainedNet,
) -> None:
    predictor = _noisy(undefended.ctx, undefended.model, 0.5, 1)
    model = predictor.model.train()
    with frozen_for_attack(model):
        assert torch.equal(model(undefended.x), model(undefended.x))
    assert model.training and not torch.equal(model(undefended.x), model(undefended.x))
