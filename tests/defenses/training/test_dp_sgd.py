import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from opacus.accountants import RDPAccountant
from opacus.accountants.accountant import IAccountant
from torch import Tensor, nn
from torch.nn import functional as F

from tests.making import EPS, LinearSoftmax, context_of, random_images, same_weights, spec_of
from trainables.datasets import LabelledImages
from trainables.defenses import build_defense, build_stack
from trainables.defenses.defense import Defense, StepPolicy, TrainingRun, View
from trainables.defenses.training.dp_sgd import DPSGD
from trainables.defenses.training.early_stopping import EarlyStopping
from trainables.defenses.training.label_smoothing import LabelSmoothing
from trainables.defenses.training.private_steps import PrivateSteps, check_rowwise
from trainables.errors import InputError
from trainables.models import build_model
from trainables.records.value import Measured, Missing
from trainables.storage.artefacts import ArtefactStore
from trainables.training.loop import Progress, TrainingPlan, train
from trainables.training.trained import Trained
from trainables.trial.settings import ModelSpec, TrainingSpec
from trainables.trial.stages import run_trial

BATCH = 16
HUGE = 1e9


def _opacus(noise: float, rate: float, steps: int, delta: float) -> float:
    accountant: IAccountant = RDPAccountant()
    for _ in range(steps):
        accountant.step(noise_multiplier=noise, sample_rate=rate)
    return float(accountant.get_epsilon(delta))


def _net(norm: bool = True) -> nn.Sequential:
    """Return a small network for images (B, 1, 8, 8), with group norm or without any."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8) if norm else nn.Identity(),
            nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip


def _plan(
    data: LabelledImages, *stack: Defense, epochs: int = 2, calibration: bool = False
) -> TrainingPlan:
    return TrainingPlan(
        data=data,
        held_out=data,
        calibration=random_images(40) if calibration else None,
        num_classes=10,
        augmentation="none",
        settings=TrainingSpec(epochs=epochs, batch_size=BATCH),
        stack=build_stack(stack).training,
    )


def _train(model: nn.Module, plan: TrainingPlan, seed: int = 0) -> Progress:
    return train(model, plan, torch.Generator().manual_seed(seed))


def _trained(folder: Path, *stack: Defense, model: ModelSpec | None = None) -> Trained:
    ctx = context_of(spec_of(*stack, epochs=2, model=model), folder)
    return ctx.train(ctx.spec.stack, ctx.pools.train, 0)


@contextmanager
def _steps(model: nn.Module, *, noise: float, norm: float) -> Iterator[Callable[..., None]]:
    """Return a way to take one step of SGD at rate 1 on images x and labels y, all of a batch."""
    private = PrivateSteps(noise_multiplier=noise, max_grad_norm=norm, dp_delta=None)
    optimizer = private.wrap_optimizer(torch.optim.SGD(model.parameters(), lr=1.0))
    run = TrainingRun(
        model=model, rows=64, batch_size=BATCH, generator=torch.Generator().manual_seed(0)
    )

    def step(x: Tensor, y: Tensor) -> None:
        private.optimizer.drawn = len(x)
        optimizer.zero_grad(set_to_none=True)
        if len(x) > 0:
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    with private.around(run):
        yield step


def _moved(model: nn.Module, before: nn.Module) -> Tensor:
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    return torch.cat([(old - new).detach().flatten() for new, old in pairs])


def _row_gradients(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    found = []
    for row in range(len(x)):
        loss = F.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return found


def _batch(rows: int = 12) -> tuple[Tensor, Tensor]:
    images = random_images(rows)
    x = images.images()
    x[3] *= 1000  # one row whose gradient outweighs all others
    return x, images.labels


@pytest.mark.parametrize("make", [_net, lambda: _net(norm=False), lambda: LinearSoftmax(64, 10)])
@pytest.mark.parametrize("norm", [0.1, 5.0, HUGE])
def test_a_step_is_the_sum_of_the_rows_clipped_gradients(
    make: Callable[[], nn.Module], norm: float
) -> None:
    model, (x, y) = make(), _batch()
    before = copy.deepcopy(model)
    with _steps(model, noise=0.0, norm=norm) as step:
        step(x, y)
    rows = _row_gradients(before, x, y)
    clipped = torch.stack([row * min(1.0, norm / float(row.norm())) for row in rows]).sum(0)
    torch.testing.assert_close(_moved(model, before), clipped / BATCH, atol=1e-5, rtol=1e-4)


def test_one_huge_gradient_moves_a_step_by_no_more_than_its_share() -> None:
    x, y = _batch()
    norms = [float(row.norm()) for row in _row_gradients(_net(norm=False), x, y)]
    assert norms[3] > 20 * sorted(norms)[-2]
    steps = []
    for kept in (torch.arange(12), torch.tensor([r for r in range(12) if r != 3])):
        model = _net(norm=False)
        before = copy.deepcopy(model)
        with _steps(model, noise=0.0, norm=0.5) as step:
            step(x[kept], y[kept])
        steps.append(_moved(model, before))
        assert float(steps[-1].norm()) <= len(kept) / BATCH * 0.5 * (1 + 1e-5)
    assert float((steps[0] - steps[1]).norm()) == pytest.approx(0.5 / BATCH, rel=1e-3)


@pytest.mark.parametrize("rows", [0, 12])
def test_the_noise_has_its_deviation_also_on_an_empty_batch(rows: int) -> None:
    x, y = _batch()
    moved = []
    for noise in (0.0, 3.0):
        model = _net()
        before = copy.deepcopy(model)
        with _steps(model, noise=noise, norm=0.5) as step:
            step(x[:rows], y[:rows])
        moved.append(_moved(model, before))
    noise_of_step = moved[1] - moved[0]
    assert float(noise_of_step.std()) == pytest.approx(3.0 * 0.5 / BATCH, rel=0.05)
    assert abs(float(noise_of_step.mean())) < 4 * 3.0 * 0.5 / BATCH / len(noise_of_step) ** 0.5
    assert rows > 0 or float(moved[0].norm()) == 0


def test_without_noise_and_clipping_it_is_sgd_on_the_poisson_batches() -> None:
    data, ours, theirs = random_images(50), _net(), _net()
    _train(ours, _plan(data, DPSGD(noise_multiplier=0.0, max_grad_norm=HUGE), epochs=3), seed=5)

    generator = torch.Generator().manual_seed(5)
    optimizer = torch.optim.SGD(
        theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=12, cycle_momentum=False
    )
    sizes = []
    for _ in range(12):
        drawn = torch.rand(50, generator=generator, dtype=torch.float64) < BATCH / 50
        rows = drawn.nonzero().flatten()
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs(data.images(rows)), data.labels[rows], reduction="sum")
        (loss / BATCH).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        sizes.append(len(rows))
    assert len(set(sizes)) > 4
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_each_row_is_drawn_with_the_same_probability_apart_from_the_others() -> None:
    private = PrivateSteps(noise_multiplier=1.0, max_grad_norm=1.0, dp_delta=None)
    model, generator = LinearSoftmax(4, 2), torch.Generator().manual_seed(0)
    private.wrap_optimizer(torch.optim.SGD(model.parameters(), lr=1.0))
    run = TrainingRun(model=model, rows=40, batch_size=10, generator=generator)
    drawn = torch.zeros(4000, 40)
    with private.around(run):
        for number in range(4000):
            drawn[number, private.sample(run)] = 1.0
    assert float((drawn.mean(0) - 0.25).abs().max()) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert float(drawn.sum(1).var()) == pytest.approx(40 * 0.25 * 0.75, rel=0.1)
    covariance = torch.cov(drawn.T) - torch.diag(drawn.var(0))
    assert float(covariance.abs().max()) < 5 * 0.25 * 0.75 / 4000**0.5


class _DrawsNothing(DPSGD):
    """Every second batch is empty."""

    def step_policy(self) -> StepPolicy:
        private = PrivateSteps(noise_multiplier=1.0, max_grad_norm=1.0, dp_delta=None)
        numbers = iter(range(10**6))

        def sample(run: TrainingRun) -> Tensor:
            rows = private.sample(run)[: 100 * (next(numbers) % 2)]
            private.optimizer.drawn = len(rows)
            return rows

        return StepPolicy(
            wrap_optimizer=private.wrap_optimizer, around=private.around, sample=sample,
            epoch_values=private.spent,
        )  # fmt: skip


def test_a_training_takes_its_step_on_an_empty_batch_too() -> None:
    data, model = random_images(64), _net()
    curves = _train(model, _plan(data, _DrawsNothing())).curves
    expected = [_opacus(1.0, BATCH / 64, steps, 1 / 128) for steps in (4, 8)]
    assert curves["dp_epsilon"] == expected
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


@pytest.mark.parametrize("defense", [DPSGD(), DPSGD(noise_multiplier=0.7, dp_delta=1e-5)])
def test_what_is_spent_is_what_opacus_counts(defense: DPSGD, tmp_path: Path) -> None:
    trained = _trained(tmp_path, defense, LabelSmoothing(alpha=-0.05))
    rows = len(trained.members)
    assert rows == 200  # four steps an epoch
    delta = 1 / 400 if defense.dp_delta is None else defense.dp_delta
    expected = [_opacus(defense.noise_multiplier, 64 / rows, n, delta) for n in (4, 8)]
    assert trained.curves["dp_epsilon"] == expected
    assert 0 < expected[0] < expected[1]


def test_all_steps_count_where_a_training_stops_and_an_earlier_epoch_is_kept() -> None:
    data, stopping = random_images(64), EarlyStopping(patience=2)
    plan = _plan(data, DPSGD(noise_multiplier=2.0), stopping, epochs=30, calibration=True)
    model = _net()
    curves = _train(model, plan).curves
    scores = curves["early_stopping_score"]
    taken, best = len(scores), scores.index(min(scores))
    assert best < taken - 1 and taken < 30
    assert curves["dp_epsilon"][-1] == _opacus(2.0, BATCH / 64, 4 * taken, 1 / 128)
    assert curves["dp_epsilon"][-1] > curves["dp_epsilon"][best]


def test_a_batch_larger_than_the_data_draws_every_row() -> None:
    data, ours, theirs = random_images(40), LinearSoftmax(64, 10), LinearSoftmax(64, 10)
    plan = _plan(data, DPSGD(noise_multiplier=0.0, max_grad_norm=HUGE))
    settings = TrainingSpec(epochs=1, batch_size=100, momentum=0.0, schedule="constant")
    object.__setattr__(plan, "settings", settings)
    _train(ours, plan)
    object.__setattr__(plan, "stack", ())
    _train(theirs, plan)
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_a_training_repeats_bit_for_bit_and_the_seed_draws_the_noise(tmp_path: Path) -> None:
    one, two = (_trained(tmp_path / name, DPSGD()) for name in ("a", "b"))
    assert same_weights(one.model, two.model) and one.curves == two.curves
    nets = [_net() for _ in range(2)]
    for seed, net in enumerate(nets):
        _train(net, _plan(random_images(64), DPSGD()), seed=seed)
    assert not same_weights(*nets)


def test_a_model_comes_out_as_it_went_in() -> None:
    model, plain = _net(), _net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(model, _plan(random_images(64), DPSGD()))
    _train(plain, _plan(random_images(64)))
    assert list(model.state_dict()) == list(plain.state_dict())
    for ours, theirs in zip(model.modules(), plain.modules(), strict=True):
        assert type(ours) is type(theirs) and ours.__dict__.keys() == theirs.__dict__.keys()
        assert not ours._forward_hooks and not ours._backward_hooks
    assert all(not weight.__dict__ for weight in model.parameters())
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert same_weights(model, again)


def test_hooks_are_gone_after_a_failure_too() -> None:
    model, (x, y) = _net(), _batch()
    with pytest.raises(RuntimeError), _steps(model, noise=1.0, norm=1.0) as step:
        step(x[:, :, :3], y)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert not any(weight.__dict__ for weight in model.parameters())
    assert "activations" not in model[0].__dict__


def test_batch_norm_is_refused_by_name_and_group_norm_is_offered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stem\.layer1\.\d is a BatchNorm2d.*norm: group") as got:
        _trained(tmp_path, DPSGD(), model=ModelSpec(name="cnn_bn"))
    assert "\n" not in str(got.value)
    assert not list(tmp_path.rglob("*.safetensors"))  # nothing was trained
    trained = _trained(tmp_path, DPSGD(), model=ModelSpec(name="cnn_bn", norm="group"))
    plain = build_model("cnn_bn", dataset=context_of(spec_of(), tmp_path).dataset, norm="group")
    assert list(trained.model.state_dict()) == list(plain.state_dict())


class _OwnBatchNorm(nn.BatchNorm1d):
    """A user's own."""


class _WeightAndBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("count", torch.zeros(1))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm2d(3, affine=False), "1 is a BatchNorm2d"),
        (_OwnBatchNorm(3), "1 is a _OwnBatchNorm"),
        (nn.InstanceNorm2d(3, track_running_stats=True), "1 is a InstanceNorm2d"),
        (_WeightAndBuffer(), "1 is a _WeightAndBuffer, which has both weights and buffers"),
    ],
)
def test_layers_that_do_not_keep_rows_apart_are_refused(module: nn.Module, message: str) -> None:
    check_rowwise(nn.Sequential(nn.Flatten(), nn.InstanceNorm2d(3), nn.LayerNorm(3)))
    with pytest.raises(InputError, match=message):
        check_rowwise(nn.Sequential(nn.Flatten(), module))


@pytest.mark.parametrize("name", ["pixeldp", *DPSGD.refuses])
def test_what_no_accountant_counts_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match="cannot be stacked: ") as caught:
        build_stack([DPSGD(), build_defense(name, {}, radius=EPS)])
    reason = str(caught.value)
    assert "\n" not in reason and "fill the slot" not in reason


@pytest.mark.parametrize(
    "names",
    [
        ("label_smoothing", "early_stopping", "randomized_network", "temperature"),
        ("confidence_masking",),
        ("randomized_smoothing",),
        ("energy_detector",),
    ],
)
def test_what_it_goes_with_trains(names: tuple[str, ...], tmp_path: Path) -> None:
    others = [build_defense(name, {}, radius=EPS) for name in names]
    trained = _trained(tmp_path, DPSGD(), *others)
    assert len(trained.curves["dp_epsilon"]) == 2


class _TwoViews(Defense):
    name = "tests:TwoViews"
    slot = "labels"

    def views(self, model: nn.Module, views: object, generator: torch.Generator) -> list[View]:
        """Return the clean view twice, at half the weight."""
        assert isinstance(views, list)
        return [View(view.x, view.target, 0.5) for view in 2 * views]


def test_two_views_of_a_row_are_not_counted_as_private() -> None:
    with pytest.raises(InputError, match="one gradient a row"):
        _train(_net(), _plan(random_images(64), DPSGD(), _TwoViews()))


def test_a_weight_that_is_not_used_is_refused() -> None:
    model = _net()
    model.unused = nn.Linear(2, 2)
    model.forward = lambda x: nn.Sequential(*list(model)[:5])(x)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="weights that the network does not use"):
        _train(model, _plan(random_images(64), DPSGD()))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InputError, match="31 training rows are too few; it needs at least 32"):
        _train(_net(), _plan(random_images(31), DPSGD()))


def test_the_metric_is_the_last_of_the_curve_and_the_notes_say_the_delta(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)
    private = run_trial(spec_of(DPSGD(), epochs=2), store)
    assert private.error is None
    expected = _opacus(1.0, 64 / 200, 8, 1 / 400)
    assert private.metrics["dp_epsilon"] == Measured(expected, expected, expected, 1)
    assert private.notes["clean"]["dp_delta"] == 1 / 400
    for other in (spec_of(), spec_of(DPSGD(noise_multiplier=0.0))):
        found = run_trial(other, store)
        assert found.error is None
        assert found.metrics["dp_epsilon"] == Missing("the training is not differentially private")
        assert "dp_delta" not in found.notes["clean"]
