import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from tests.conftest import TrainedNet
from tests.making import EPS, accuracy, context_of, spec_of, train_in
from trainables.defenses import View, build_defense, build_stack
from trainables.defenses.certified import randomized_smoothing
from trainables.defenses.certified.randomized_smoothing import (
    RandomizedSmoothing,
    SmoothedPredictor,
    cannot_win,
    cohen_radius,
    wins_needed,
)
from trainables.deployed.predictor import REFUSED, Certificates, Predictor
from trainables.errors import InputError
from trainables.threats.evasion.target import target_of


def _seed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class HalfSpace(nn.Module):
    """Class 1 where the mean pixel is above 0, else class 0: its smoothing is known exactly.

    Of an image of one pixel x, p_1 = Phi(x / sigma), and the smoothed class holds within |x|.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, 3)."""
        self.sizes.append(len(x))
        self.seen.append(x.detach().clone())
        mean = x.flatten(1).mean(1)
        return torch.stack([-mean, mean, torch.full_like(mean, -9.0)], dim=1)


def _smoothed(model: nn.Module, **settings: float) -> SmoothedPredictor:
    return SmoothedPredictor(Predictor(model), RandomizedSmoothing(**settings))  # type: ignore[arg-type]


def _pixels(value: float, count: int) -> Tensor:
    return torch.full((count, 1, 1, 1), value)


def _certify(predictor: SmoothedPredictor, x: Tensor, seed: int = 0) -> Certificates:
    return predictor.certificates(x, _seed(seed))


@pytest.mark.parametrize(
    ("n", "alpha", "sigma"),
    [(1, 0.5, 1.0), (100, 0.001, 0.25), (1000, 0.05, 0.5), (10_000, 1e-6, 1.0)],
)
def test_the_radius_is_the_closed_form_of_the_counts(n: int, alpha: float, sigma: float) -> None:
    wins = range(0, n + 1, max(1, n // 500))
    found = cohen_radius(torch.tensor(list(wins)), n, alpha, sigma)
    assert found.dtype == torch.float64
    for k, radius in zip(wins, found.tolist(), strict=True):
        p = float(stats.beta.ppf(alpha, k, n - k + 1)) if k else 0.0
        expected = sigma * float(stats.norm.ppf(p)) if p > 0.5 else 0.0
        assert radius == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "largest"), [(100, 1.50), (300, 2.00), (1000, 2.46), (10_000, 3.20), (100_000, 3.81)]
)
def test_the_largest_radius_is_the_published_one(n: int, largest: float) -> None:
    found = float(cohen_radius(torch.tensor([n]), n, 0.001, 1.0))
    assert found == pytest.approx(largest, abs=0.006)


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-9])
def test_the_wins_needed_are_the_fewest_that_certify(alpha: float) -> None:
    for n in (1, 2, 10, 37, 1000, 20_000):
        certified = cohen_radius(torch.arange(n + 1), n, alpha, 1.0) > 0
        fewest = int(certified.nonzero()[0]) if bool(certified.any()) else n + 1
        assert wins_needed(n, alpha) in (fewest, fewest - 1)
        assert wins_needed(n, alpha) <= fewest, "an image that could be certified is not hopeless"


def test_a_prediction_abstains_where_a_binomial_test_does() -> None:
    predictor = _smoothed(HalfSpace(), alpha=0.01)
    generator = np.random.default_rng(0)
    rows = generator.multinomial(60, [0.5, 0.35, 0.1, 0.05], size=300).tolist()
    rows += [[30, 30, 0, 0], [60, 0, 0, 0], [0, 0, 0, 1], [0, 5, 0, 5]]
    found = predictor.elect(torch.tensor(rows)).tolist()
    for row, label in zip(rows, found, strict=True):
        second, first = sorted(row)[-2:]
        sure = stats.binomtest(first, first + second, 0.5).pvalue <= 0.01
        assert label == (row.index(first) if sure else REFUSED)
    assert 0 < found.count(REFUSED) < len(found)


@pytest.mark.parametrize(
    ("draws", "alpha"), [(10, 0.001), (5, 0.05), (2, 0.4), (1, 0.4), (40, 1e-12)]
)
def test_a_vote_that_is_never_settled_is_refused_with_the_fewest_draws(
    draws: int, alpha: float
) -> None:
    with pytest.raises(InputError, match="every answer would be an abstention") as caught:
        RandomizedSmoothing(draws=draws, n=100, alpha=alpha)
    least = int(str(caught.value).rpartition(" ")[2])
    assert least > draws
    # Of one fewer even a vote of one mind is no surprise of a fair coin.
    sizes = (least - 1, least)
    settled = [stats.binomtest(each, each, 0.5).pvalue <= alpha for each in sizes]
    assert settled == [False, True]
    predictor = _smoothed(HalfSpace(), draws=least, n=100, alpha=alpha)
    assert predictor.elect(torch.tensor([[0, least, 0]])).tolist() == [1]


def test_eleven_draws_are_the_fewest_at_a_level_of_a_thousandth() -> None:
    with pytest.raises(InputError, match=r"draws=10 .* alpha=0\.001, .* at least 11$"):
        RandomizedSmoothing(draws=10, alpha=0.001)
    assert RandomizedSmoothing(draws=11, alpha=0.001).draws == 11


def test_draws_that_certify_nothing_are_refused_with_the_fewest() -> None:
    with pytest.raises(InputError, match=r"n=9 draws certify nothing .* at least 10$"):
        RandomizedSmoothing(n=9, alpha=0.001)
    least = RandomizedSmoothing(n=10, alpha=0.001)
    assert float(cohen_radius(torch.tensor([10]), least.n, least.alpha, 1.0)) > 0
    assert float(cohen_radius(torch.tensor([9]), 9, least.alpha, 1.0)) == 0


def test_the_views_get_noise_that_is_not_cut_and_keep_the_rest() -> None:
    x = torch.rand(200, 1, 8, 8, generator=_seed(1))
    target = F.one_hot(torch.arange(200) % 10, 10).float()
    defense = RandomizedSmoothing(sigma=0.5)
    views = [View(x, target, 0.25), View(1 - x, target, 0.75)]
    noisy = defense.views(nn.Identity(), views, _seed())
    again = defense.views(nn.Identity(), views, _seed())
    for before, after, same in zip(views, noisy, again, strict=True):
        noise = after.x - before.x
        assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
        assert float(after.x.min()) < 0 and float(after.x.max()) > 1
        assert torch.equal(after.x, same.x)
        assert after.target is before.target and after.weight == before.weight
    assert not torch.allclose(noisy[0].x - x, noisy[1].x - (1 - x))


def test_noise_comes_after_the_adversarial_images(undefended: TrainedNet) -> None:
    stack = build_stack(
        build_defense(name, {}, radius=EPS)
        for name in ("randomized_smoothing", "pgd_adversarial_training")
    )
    assert [defense.name for defense in stack] == [
        "pgd_adversarial_training", "randomized_smoothing"
    ]  # fmt: skip
    x, y = undefended.x[:32], undefended.y[:32]
    clean = View(x, F.one_hot(y, 10).float(), 1.0)
    attacked = stack.defenses[0].views(undefended.model, [clean], _seed())
    noisy = stack.defenses[1].views(undefended.model, attacked, _seed(1))
    assert max(float((view.x - x).abs().max()) for view in attacked) <= EPS + 1e-6
    for before, after in zip(attacked, noisy, strict=True):
        assert float((after.x - before.x).std()) == pytest.approx(0.25, rel=0.05)


def test_what_it_cannot_be_stacked_with_says_why() -> None:
    for other, reason in RandomizedSmoothing.refuses.items():
        pair = [build_defense(name, {}, radius=EPS) for name in (other, "randomized_smoothing")]
        with pytest.raises(InputError, match=reason[:20]):
            build_stack(pair)
    assert "randomised step under smoothing" in RandomizedSmoothing.refuses["randomized_network"]
    assert "two certificates" in RandomizedSmoothing.refuses["pixeldp"]


def test_what_rejects_images_is_not_smoothed(undefended: TrainedNet) -> None:
    inner = Predictor(undefended.model)
    inner.rejects = True
    with pytest.raises(InputError, match="randomized_smoothing: Predictor rejects images"):
        RandomizedSmoothing().deploy(inner, undefended.ctx)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("p", [0.5, 0.6, 0.99])
def test_of_1000_certificates_no_more_than_alpha_are_wrong(p: float, alpha: float) -> None:
    sigma, n, repeats = 0.5, 500, 1000
    distance = sigma * float(stats.norm.ppf(p))
    predictor = _smoothed(HalfSpace(), sigma=sigma, n0=20, n=n, alpha=alpha)
    found = _certify(predictor, _pixels(distance, repeats))
    wrong = (found.radius > distance + 1e-6) | ((found.label == 0) & (found.radius > 0))
    if p == 0.5:  # on the border any radius at all is wrong
        wrong = found.radius > 0
    rate, error = float(wrong.double().mean()), math.sqrt(alpha * (1 - alpha) / repeats)
    assert rate <= alpha + 3 * error
    assert found.failure_probability == alpha
    if alpha == 0.05 and p == 0.6:
        # The bound is as tight as it may be: so the test would see one that is not valid.
        assert rate > 0.02


def test_a_class_is_selected_by_other_draws_than_those_that_bound_it() -> None:
    # On the border, reusing the draws would certify the luckier of two classes: nearly 2 alpha.
    alpha, n = 0.05, 100
    predictor = _smoothed(HalfSpace(), sigma=1.0, n0=n, n=n, alpha=alpha)
    wrong = _certify(predictor, _pixels(0.0, 2000)).radius > 0
    assert float(wrong.double().mean()) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 2000)
    model = HalfSpace()
    _certify(_smoothed(model, n0=30, n=70), _pixels(9.0, 1))
    drawn = torch.cat(model.seen).flatten()
    assert len(drawn) == len(set(drawn.tolist())) == 100


def test_a_certificate_is_that_of_a_plain_loop_over_the_same_noise(undefended: TrainedNet) -> None:
    n0, n, alpha, sigma = 40, 600, 0.001, 0.4

    class Recorder(nn.Module):
        seen: list[Tensor]

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x.clone())
            scores: Tensor = undefended.model(x)
            return scores

    certified = 0
    for row in range(12):
        recorder = Recorder()
        recorder.seen = []
        predictor = _smoothed(recorder, n0=n0, n=n, alpha=alpha, sigma=sigma)
        found = _certify(predictor, undefended.x[row : row + 1], row)
        noisy = torch.cat(recorder.seen)
        assert int(found.draws) == len(noisy)
        labels = [int(undefended.model(image[None]).argmax()) for image in noisy]
        chosen = Counter(labels[:n0]).most_common(1)[0][0]
        won = sum(label == chosen for label in labels[n0:])
        p = float(stats.beta.ppf(alpha, won, n - won + 1)) if won else 0.0
        certified += p > 0.5
        assert int(found.label) == (chosen if p > 0.5 else REFUSED)
        expected = sigma * float(stats.norm.ppf(p)) if p > 0.5 else 0.0
        assert float(found.radius) == pytest.approx(expected, abs=1e-9)
    assert certified > 3


def test_where_it_abstains_there_is_no_class_no_radius_and_no_rejection() -> None:
    predictor = _smoothed(HalfSpace(), sigma=0.5, n0=20, n=200, draws=200)
    x = torch.cat([_pixels(0.0, 20), _pixels(2.0, 20), _pixels(-2.0, 20)])
    found = _certify(predictor, x)
    answer = predictor.predict(x, _seed())
    for label in (found.label, answer.label):
        assert label[20:].tolist() == [1] * 20 + [0] * 20
    assert (found.label[:20] == REFUSED).tolist() == (found.radius[:20] == 0).tolist()
    assert int((found.label[:20] == REFUSED).sum()) >= 19
    assert int((answer.label[:20] == REFUSED).sum()) >= 19
    assert answer.reject_score is None and not predictor.rejects
    radius = predictor.certify(x, _seed())
    assert radius is not None and torch.equal(radius, found.radius)
    assert radius.dtype == torch.float64 and found.draws.dtype == torch.int64


def test_an_abstention_is_wrong_for_every_threat(undefended: TrainedNet) -> None:
    predictor = _smoothed(undefended.model, sigma=50.0, draws=20)
    points, ctx = undefended.ctx.points(), undefended.ctx
    label = predictor.predict(points.images(slice(0, 64)), _seed()).label
    assert int((label == REFUSED).sum()) > 32
    target = target_of(predictor, points, ctx)
    assert target.stochastic and not target.undeclared


def test_the_memory_does_not_grow_with_the_draws() -> None:
    largest = []
    for n in (200, 20_000):
        model = HalfSpace()
        found = _certify(_smoothed(model, n=n, n0=100), _pixels(9.0, 4))
        assert found.draws.tolist() == [n + 100] * 4
        assert sum(model.sizes) == 4 * (n + 100)
        largest.append(max(model.sizes))
    assert max(largest) <= 128


def test_stopping_early_saves_draws_and_loses_no_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sigma, n = 1.0, 2000
    rates = [0.5, 0.52, 0.55, 0.6, 0.9]
    x = torch.tensor([float(stats.norm.ppf(p)) for p in rates]).view(-1, 1, 1, 1)
    predictor = _smoothed(HalfSpace(), sigma=sigma, n0=50, n=n)
    early = [_certify(predictor, image[None], seed) for seed in range(8) for image in x]

    def never(counts: Tensor, rows: Tensor, taken: int) -> Tensor:
        return torch.zeros(len(rows), dtype=torch.bool)

    monkeypatch.setattr(randomized_smoothing, "cannot_win", lambda *_: never)
    whole = [_certify(predictor, image[None], seed) for seed in range(8) for image in x]
    for one, other in zip(early, whole, strict=True):
        assert int(other.draws) == n + 50
        assert torch.equal(one.radius, other.radius) and torch.equal(one.label, other.label)
    hopeless, sure = early[::5], early[4::5]
    assert all(int(one.draws) == n + 50 and float(one.radius) > 1 for one in sure)
    assert sum(int(one.draws) for one in hopeless) < 0.95 * 8 * (n + 50)


def test_a_class_that_lost_is_given_up_at_once() -> None:
    model = HalfSpace()
    # One draw selects: about one time in six it is the class that will then lose nearly all.
    found = _certify(_smoothed(model, sigma=1.0, n0=1, n=10_000), _pixels(1.0, 60))
    lost = found.label == REFUSED
    assert 1 <= int(lost.sum()) <= 25
    assert found.draws[lost].tolist() == [201] * int(lost.sum())
    assert found.draws[~lost].tolist() == [10_001] * int((~lost).sum())


@pytest.mark.parametrize("p", [0.5, 0.55, 0.6, 0.75])
def test_no_path_that_ends_in_a_certificate_is_broken_off(p: float) -> None:
    n, alpha, paths = 1000, 0.001, 3000
    wins = (torch.rand(paths, n, generator=_seed()) < p).cumsum(1)
    hopeless = cannot_win(torch.ones(paths, dtype=torch.int64), n, alpha)
    rows, stopped = torch.arange(paths), torch.zeros(paths, dtype=torch.bool)
    for taken in range(20, n, 20):
        won = wins[:, taken - 1]
        stopped |= hopeless(torch.stack([taken - won, won], dim=1), rows, taken)
    certified = wins[:, -1] >= wins_needed(n, alpha)
    assert not bool((stopped & certified).any())
    if p == 0.5:
        assert int(stopped.sum()) > 0.8 * paths
    else:
        assert int(certified.sum()) > 500


class Viewing(nn.Module):
    """A user's own network: no points, and a `view`, which needs the usual layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, 3)."""
        scores: Tensor = self.head(self.conv(x).view(len(x), -1))
        return scores


def test_a_network_of_a_users_own_can_be_smoothed() -> None:
    torch.manual_seed(0)
    predictor = _smoothed(Viewing(), sigma=0.01, n=300, draws=100)
    x = torch.rand(5, 2, 8, 8, generator=_seed())
    found = _certify(predictor, x)
    assert found.radius.shape == (5,) and float(found.radius.max()) > 0
    assert predictor.predict(x, _seed()).log_probabilities.shape == (5, 3)


def test_a_network_trained_under_noise_certifies_more_than_one_that_was_not(
    undefended: TrainedNet, artefact_folder: Path
) -> None:
    defense = RandomizedSmoothing(n=500, draws=100)
    ctx = context_of(
        spec_of(defense, epochs=15, train_images=None, measured_images=None), artefact_folder
    )
    trained = defense.deploy(Predictor(train_in(ctx)), ctx)
    plain = defense.deploy(Predictor(undefended.model), ctx)
    x, y = undefended.x[:60], undefended.y[:60]
    assert accuracy(trained.model, x, y) > 0.9
    radii = []
    for predictor in (trained, plain):
        found = predictor.certificates(x, _seed())
        assert found is not None
        radii.append(float((found.radius * (found.label == y)).mean()))
        assert float((found.label == y).double().mean()) > 0.5
    assert radii[0] > 1.05 * radii[1]


def test_a_stack_with_adversarial_training_trains_and_certifies(tmp_path: Path) -> None:
    stack = [
        build_defense("fgsm_adversarial_training", {"eps": 0.05}, radius=EPS),
        RandomizedSmoothing(n=300, draws=100),
    ]
    ctx = context_of(spec_of(*stack, epochs=8, train_images=None), tmp_path)
    predictor, points = ctx.deploy(ctx.spec.stack, train_in(ctx)), ctx.points()
    found = predictor.certificates(points.images(), _seed())
    assert found is not None
    assert float((found.label == points.labels).double().mean()) > 0.6
