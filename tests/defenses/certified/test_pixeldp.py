import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TrainedNet
from tests.defenses.pixeldp_sizes import largest_size
from tests.defenses.robustness import trained_with
from tests.making import EPS, LinearSoftmax, context_of, spec_of
from trainables.defenses import Stack, build_defense, build_stack
from trainables.defenses.certified.pixeldp import PixelDP, PixelDPNoise, PixelDPPredictor, noise_of
from trainables.defenses.certified.pixeldp_certificate import certified_sizes, fewest_draws
from trainables.defenses.prediction.ensemble import EnsemblePredictor
from trainables.deployed.predictor import REFUSED, Predictor
from trainables.deployed.votes import count_votes
from trainables.errors import InputError
from trainables.models import Classifier, build_model
from trainables.models.bounds.lipschitz import lipschitz_bound
from trainables.trial.context import TrialContext
from trainables.trial.settings import ModelSpec


def _seed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _deployed(net: TrainedNet, defense: PixelDP) -> PixelDPPredictor:
    """Deploy a trained net that has the defense's noise in it, under other parameters."""
    predictor = defense.deploy(Predictor(net.model), net.ctx)
    assert isinstance(predictor, PixelDPPredictor)
    return predictor


def _noisier(net: TrainedNet, sigma: float) -> PixelDPPredictor:
    """Deploy a copy of a trained net with more noise than it was trained with."""
    model = copy.deepcopy(net.model)
    noise_of(model).sigma = sigma
    predictor = PixelDP(draws=30, n=300).deploy(Predictor(model), net.ctx)
    assert isinstance(predictor, PixelDPPredictor)
    return predictor


def _path(model: nn.Module, placement: str) -> list[nn.Module]:
    assert isinstance(model, Classifier)
    return model.path_to(placement)


@pytest.fixture(scope="module")
def normalized(artefact_folder: Path) -> TrainedNet:
    """Train a small_cnn on the digits with noise after layer 1."""
    return trained_with(PixelDP(attack_bound=0.05), folder=artefact_folder)


@pytest.fixture(scope="module")
def measured(artefact_folder: Path) -> TrainedNet:
    """Train the same without control of the layer before the noise."""
    return trained_with(PixelDP(attack_bound=0.05, sensitivity="measured"), folder=artefact_folder)


def test_the_noise_stands_where_it_is_placed_and_weights_keep_their_names(
    undefended: TrainedNet,
) -> None:
    ctx = undefended.ctx
    for placement in ("image", "layer1", "layer2"):
        model = build_model("small_cnn", dataset=ctx.dataset)
        names = list(model.state_dict())
        defense = PixelDP(placement=placement)
        assert defense.modify_model(model, ctx) is model
        assert list(model.state_dict()) == names
        assert [m for m in model.modules() if isinstance(m, PixelDPNoise)] == [noise_of(model)]
        assert model.points[placement] is noise_of(model)  # type: ignore[index]
        assert noise_of(model).sigma == defense.sigma


def test_an_unknown_placement_names_the_known_ones(undefended: TrainedNet) -> None:
    for wrong in ("features", "layer9"):
        model = build_model("small_cnn", dataset=undefended.ctx.dataset)
        with pytest.raises(InputError, match=f"'{wrong}'; known: image, layer1, layer2$"):
            PixelDP(placement=wrong).modify_model(model, undefended.ctx)


class _OtherNet(LinearSoftmax):
    """A user's own network with two points."""

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.points = nn.ModuleDict({"image": nn.Identity(), "layer1": nn.Identity()})

    def insert(self, point: str, module: nn.Module) -> None:
        """Put a module at a point."""
        self.points[point] = module

    def forward(self, x: Tensor) -> Tensor:
        """Return scores of what the points pass on."""
        return super().forward(self.points["layer1"](self.points["image"](x)))


def test_of_another_kind_of_network_noise_goes_into_the_image_only(undefended: TrainedNet) -> None:
    ctx, x = undefended.ctx, undefended.x[:5]
    with pytest.raises(InputError, match=r"_OtherNet is none; take placement=image$"):
        PixelDP().modify_model(_OtherNet(), ctx)
    with pytest.raises(InputError, match=r"'layer2'; known: image, layer1$"):
        PixelDP(placement="layer2").modify_model(_OtherNet(), ctx)
    defense = PixelDP(placement="image", draws=5)
    predictor = defense.deploy(Predictor(defense.modify_model(_OtherNet(), ctx)), ctx)
    assert predictor.predict(x, _seed()).label.shape == (5,)
    assert isinstance(predictor, PixelDPPredictor) and predictor.sensitivity == 1.0


def test_a_layer_without_a_bound_is_refused_by_name_before_the_training(tmp_path: Path) -> None:
    ctx = context_of(spec_of(PixelDP(), model=ModelSpec(norm="group")), tmp_path)
    with pytest.raises(InputError, match=r"cannot bound GroupNorm in layer1\.1") as caught:
        ctx.train(ctx.spec.stack, ctx.pools.train, 0)
    assert "\n" not in str(caught.value)
    for sensitivity in ("normalized", "measured"):
        model = build_model("small_cnn", dataset=ctx.dataset)
        assert isinstance(model, Classifier)
        model.insert("layer1", nn.Dropout(0.1))
        defense = PixelDP(placement="layer2", sensitivity=sensitivity)
        with pytest.raises(InputError, match="cannot bound Dropout"):
            defense.modify_model(model, ctx)


def test_a_path_that_cannot_be_normalized_is_refused_before_the_training(
    undefended: TrainedNet,
) -> None:
    ctx = undefended.ctx
    model = build_model("resnet18", dataset=ctx.dataset)
    with pytest.raises(InputError, match="cannot normalize the residual block"):
        PixelDP(placement="layer2").modify_model(model, ctx)
    PixelDP(placement="layer2", sensitivity="measured").modify_model(model, ctx)


@pytest.mark.parametrize(
    "other",
    ["input_transformation", "denoiser", "diffusion_purification", "static_adversarial_finetuning",
     "randomized_network", "randomized_smoothing"],
)  # fmt: skip
def test_what_breaks_the_certificate_is_refused(other: str) -> None:
    with pytest.raises(InputError, match="cannot be stacked"):
        build_stack([PixelDP(), build_defense(other, {}, radius=EPS)])


def test_a_model_without_noise_is_not_deployed(undefended: TrainedNet) -> None:
    with pytest.raises(RuntimeError, match="no noise of pixeldp"):
        PixelDP().deploy(Predictor(undefended.model), undefended.ctx)


def test_parameters_of_the_deployment_retrain_nothing_and_the_others_do(tmp_path: Path) -> None:
    ctx = context_of(spec_of(PixelDP()), tmp_path)

    def key(defense: PixelDP) -> str:
        return ctx.train(Stack((defense,)), ctx.pools.train, 0).key

    plain = key(PixelDP())
    assert key(PixelDP(draws=7, n=50, eta=0.2)) == plain
    for other in (
        PixelDP(attack_bound=0.05),
        PixelDP(dp_epsilon=0.5),
        PixelDP(dp_delta=0.01),
        PixelDP(placement="layer2"),
        PixelDP(sensitivity="measured"),
    ):
        assert key(other) != plain


def test_noise_is_there_in_the_training_and_at_prediction(normalized: TrainedNet) -> None:
    model, x = copy.deepcopy(normalized.model), normalized.x[:20]
    noise = noise_of(model)
    given: list[Tensor] = []
    model.points["layer1"].register_forward_hook(  # type: ignore[index, union-attr]
        lambda module, inputs, output: given.append(output / module.gain - inputs[0])
    )
    with torch.random.fork_rng():
        model.train()(x)
    assert float(given[-1].std()) == pytest.approx(noise.sigma, rel=0.05)
    predictor = PixelDP(attack_bound=0.05).deploy(Predictor(model), normalized.ctx)
    one, two = (predictor.predict(x, _seed(seed)).log_probabilities for seed in (0, 1))
    again = predictor.predict(x, _seed(0)).log_probabilities
    assert torch.equal(one, again) and not torch.equal(one, two)
    assert noise.generator is None and noise.copies == 1


def test_the_noise_shapes_the_weights(tmp_path: Path) -> None:
    ctx = context_of(spec_of(epochs=1), tmp_path)
    small = PixelDP(attack_bound=1e-4, sensitivity="measured")
    large = PixelDP(attack_bound=1.0, sensitivity="measured")
    heads = [
        ctx.train(Stack((defense,)), ctx.pools.train, 0).model.state_dict()["head.weight"]
        for defense in (small, large)
    ]
    assert float((heads[0] - heads[1]).abs().max()) > 1e-3


def test_what_stands_before_the_noise_runs_once_for_all_draws(normalized: TrainedNet) -> None:
    model = copy.deepcopy(normalized.model)
    predictor = PixelDP(draws=30).deploy(Predictor(model), normalized.ctx)
    assert isinstance(predictor, PixelDPPredictor)
    rows: list[int] = []
    model.stem.layer1.register_forward_hook(  # type: ignore[union-attr]
        lambda module, inputs, output: rows.append(len(output))
    )
    scores = predictor.draw(normalized.x[:4], 30, _seed())
    assert scores.shape == (30, 4, 10) and rows == [4]
    shares = scores.softmax(2).mean(0)
    alone = predictor.draw(normalized.x[2:3], 3000, _seed(1)).softmax(2).mean(0)
    # Draw c of image b is at (c, b): the mean over the draws is that of the image alone.
    torch.testing.assert_close(shares[2], alone[0], atol=0.15, rtol=0)


def test_a_failing_draw_leaves_no_noise_behind(normalized: TrainedNet) -> None:
    predictor = _deployed(normalized, PixelDP(attack_bound=0.05))
    with pytest.raises(RuntimeError):
        predictor.draw(normalized.x[:2, :, :3], 4, _seed())
    assert predictor.noise.generator is None and predictor.noise.copies == 1


def test_the_normalized_path_ends_at_norm_one_and_the_measured_one_grows(
    normalized: TrainedNet, measured: TrainedNet
) -> None:
    kept = lipschitz_bound(_path(normalized.model, "layer1"), normalized.ctx.dataset.shape)
    grown = lipschitz_bound(_path(measured.model, "layer1"), measured.ctx.dataset.shape)
    assert 0.5 < kept <= 1
    assert grown > 2
    assert _deployed(normalized, PixelDP(attack_bound=0.05)).sensitivity == kept
    assert _deployed(measured, PixelDP(attack_bound=0.05)).sensitivity == grown


def test_a_normalized_path_still_lets_the_network_learn(normalized: TrainedNet) -> None:
    """Without a gain behind the noise the same training ends at 0.89."""
    predictor = _deployed(normalized, PixelDP(attack_bound=0.05, draws=30))
    found = predictor.predict(normalized.x, _seed()).label == normalized.y
    assert float(found.double().mean()) > 0.92


def test_the_gain_is_behind_the_noise_and_never_in_front_of_the_normalization(
    undefended: TrainedNet,
) -> None:
    def noise(defense: PixelDP) -> PixelDPNoise:
        model = build_model("small_cnn", dataset=undefended.ctx.dataset)
        return noise_of(defense.modify_model(model, undefended.ctx)).eval()

    assert noise(PixelDP(placement="image")).gain == 1
    assert noise(PixelDP(sensitivity="measured")).gain == 1
    loud, x = noise(PixelDP(attack_bound=1.0)), torch.rand(3, 32, 8, 8)
    assert loud.gain == 1 / loud.sigma
    torch.testing.assert_close(loud(x), x / loud.sigma)
    loud.generator, loud.copies = _seed(), 50
    spread = (loud(x).unflatten(0, (50, 3)) - x / loud.sigma).std()
    assert float(spread) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_two_normalized_layers_end_at_norm_one(norm: str, tmp_path: Path) -> None:
    spec = spec_of(PixelDP(placement="layer2"), epochs=2, model=ModelSpec(norm=norm))
    ctx: TrialContext = context_of(spec, tmp_path)
    model = ctx.train(ctx.spec.stack, ctx.pools.train, 0).model
    assert lipschitz_bound(_path(model, "layer2"), ctx.dataset.shape) <= 1


def test_a_layer_twice_as_steep_halves_the_sizes(normalized: TrainedNet) -> None:
    defense, x = PixelDP(attack_bound=0.05, n=200), normalized.x[:20]
    steep = copy.deepcopy(normalized.model)
    with torch.no_grad():
        steep.stem.layer1[0].weight.mul_(2)  # type: ignore[index, union-attr]
        steep.stem.layer1[0].bias.mul_(2)  # type: ignore[index, union-attr]
        # What follows undoes it, and the noise doubles too: the votes are those of before.
        steep.stem.layer2[0].weight.div_(2)  # type: ignore[index, union-attr]
    noise_of(steep).sigma *= 2
    before = _deployed(normalized, defense)
    after = defense.deploy(Predictor(steep), normalized.ctx)
    assert isinstance(after, PixelDPPredictor)
    assert after.sensitivity == pytest.approx(2 * before.sensitivity, rel=1e-6)
    first = before.certificates(x, _seed())
    second = after.certificates(x, _seed())
    # Twice the noise and twice the sensitivity: the same sizes.
    torch.testing.assert_close(first.radius, second.radius, rtol=1e-5, atol=0)
    counts = count_votes(before.draw, x, _seed(), draws=200).counts
    halved = certified_sizes(counts, 200, sigma=defense.sigma, eta=0.05, sensitivity=2.0)
    whole = certified_sizes(counts, 200, sigma=defense.sigma, eta=0.05)
    assert (2 * halved).tolist() == whole.tolist() and whole.max() > 0


def test_certificates_are_the_sizes_of_the_votes(normalized: TrainedNet) -> None:
    defense, x = PixelDP(attack_bound=0.05, n=400, eta=0.01), normalized.x[:40]
    predictor = _deployed(normalized, defense)
    found = predictor.certificates(x, _seed())
    certified = found.radius > 0
    assert int(certified.sum()) > 25
    assert found.failure_probability == 0.01 and found.radius.dtype == torch.float64
    assert torch.equal(found.label == REFUSED, ~certified)
    assert bool((found.draws[certified] == 400).all()) and bool((found.draws <= 400).all())
    assert float(found.radius.max()) < largest_size(defense.sigma, predictor.sensitivity)
    right = found.label == normalized.y[:40]
    assert float(right[certified].double().mean()) > 0.9
    again = predictor.certificates(x, _seed())
    assert torch.equal(found.radius, again.radius) and torch.equal(found.label, again.label)


def test_giving_up_early_loses_no_certificate(normalized: TrainedNet) -> None:
    """More noise than it was trained with makes some images sure, some close, and some lost."""
    n, x, given_up, certified = 300, normalized.x[:60], 0, 0
    for noise in (0.5, 0.8, 1.2):
        predictor = _noisier(normalized, noise)
        found = predictor.certificates(x, _seed())
        # Four times the draws: n others certify a tenth of the most by luck now and then.
        counts = count_votes(predictor.draw, x, _seed(1), draws=4 * n).counts
        sizes = torch.from_numpy(
            certified_sizes(
                (counts / 4).round().long(),
                n,
                sigma=predictor.noise.sigma,
                eta=0.05,
                sensitivity=predictor.sensitivity,
            )
        )
        large = 0.1 * largest_size(predictor.noise.sigma, predictor.sensitivity)
        early = found.draws < n
        assert bool((found.radius[early] == 0).all())
        # Of what was given up, the counts that are expected certify next to nothing either ..
        assert not bool((sizes[early] > large).any())
        # .. and what they certify by a margin was not given up.
        assert bool((found.radius[sizes > large] > 0).all())
        given_up, certified = given_up + int(early.sum()), certified + int((sizes > large).sum())
    assert given_up > 20 and certified > 20


def test_hopeless_are_those_that_the_best_draws_could_not_save(normalized: TrainedNet) -> None:
    predictor = _deployed(normalized, PixelDP(attack_bound=0.05, n=1000))

    def hopeless(*counts: list[int]) -> list[bool]:
        rows = torch.tensor([row + [0] * (10 - len(row)) for row in counts])
        found = predictor.hopeless(rows, torch.arange(len(rows)), int(rows[0].sum()))
        return [bool(value) for value in found]

    assert hopeless([100], [50, 50], [10] * 10) == [False, False, False]
    assert hopeless([900], [500, 400], [450, 450], [90] * 10) == [False, False, True, True]
    # Not even if it were to win all the rest.
    assert hopeless([480, 510], [500, 490]) == [True, True]


@pytest.mark.parametrize("detector", ["feature_squeezing", "energy_detector"])
def test_stacked_with_a_detector_it_predicts_but_certifies_nothing(
    detector: str, normalized: TrainedNet
) -> None:
    inner = _deployed(normalized, PixelDP(attack_bound=0.05, draws=3, n=20))
    outer = build_defense(detector, {}, radius=EPS).deploy(inner, normalized.ctx)
    assert outer.certificates(normalized.x[:3], _seed()) is None
    assert inner.certificates(normalized.x[:3], _seed()) is not None
    assert outer.predict(normalized.x[:3], _seed()).label.shape == (3,)


def test_an_ensemble_certifies_nothing_and_a_temperature_keeps_the_certificate(
    normalized: TrainedNet,
) -> None:
    x = normalized.x[:10]
    inner = _deployed(normalized, PixelDP(attack_bound=0.05, draws=3, n=50))
    assert EnsemblePredictor([inner, inner]).certificates(x, _seed()) is None
    tempered = build_defense("temperature", {}, radius=EPS).deploy(inner, normalized.ctx)
    kept, own = tempered.certificates(x, _seed()), inner.certificates(x, _seed())
    assert kept is not None and torch.equal(kept.radius, own.radius)
    labels = [p.predict(x, _seed()).label for p in (tempered, inner)]
    assert torch.equal(*labels)


def test_the_label_is_that_of_the_vote(normalized: TrainedNet) -> None:
    predictor, x = _noisier(normalized, 0.6), normalized.x[:100]
    votes = count_votes(predictor.draw, x, _seed(), draws=predictor.draws)
    found = predictor.predict(x, _seed())
    assert torch.equal(found.label, votes.winner)
    # The largest mean probability is another label in places, but it is not what is certified.
    assert not torch.equal(found.label, found.log_probabilities.argmax(1))


def test_draws_that_certify_nothing_are_refused_with_the_fewest() -> None:
    with pytest.raises(InputError, match="pixeldp: n=10 draws certify nothing of 2 classes"):
        PixelDP(n=10, eta=1e-9)
    for num_classes, eta in ((2, 1e-9), (10, 0.05), (1000, 0.05)):
        least = fewest_draws(num_classes, eta)
        for draws, proves in ((least - 1, False), (least, True)):
            votes = torch.zeros(1, num_classes)
            votes[0, 0] = draws
            assert bool(certified_sizes(votes, draws, sigma=1.0, eta=eta)[0] > 0) is proves
    assert PixelDP(n=fewest_draws(2, 1e-9), eta=1e-9).eta == 1e-9
    # One vote has a winner: of a prediction no number of draws is too small.
    assert PixelDP(draws=1).draws == 1


def test_the_number_of_the_datas_classes_counts(undefended: TrainedNet) -> None:
    few = PixelDP(n=10, eta=0.003)
    with pytest.raises(InputError, match="certify nothing of 10 classes"):
        few.modify_model(copy.deepcopy(undefended.model), undefended.ctx)
