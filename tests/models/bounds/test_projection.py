import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.making import dataset_of
from trainables.errors import InputError
from trainables.models import Classifier, build_model
from trainables.models.bounds.lipschitz import lipschitz_bound
from trainables.models.bounds.projection import PathProjection, leading_pair, squared_pair

SHAPE = (1, 8, 8)
NEARLY_ONE = 1 + 1e-6


def classifier(name: str, **settings: str) -> Classifier:
    """Build one of our models for 8x8 images."""
    torch.manual_seed(1)
    model = build_model(name, dataset=dataset_of(1, 8), **settings)
    assert isinstance(model, Classifier)
    return model


def bound(layers: list[nn.Module]) -> float:
    """Bound a path with exact norms where they take no second."""
    return lipschitz_bound(layers, SHAPE, largest_exact=1024)


CASES = [
    ("pixeldp_cnn", "layer1", "relu"),
    ("pixeldp_cnn", "layer2", "relu"),
    ("pixeldp_cnn", "layer2", "gelu"),
    ("cnn_bn", "layer2", "relu"),
    ("cnn_bn", "layer2", "silu"),
    ("lenet5", "layer2", "tanh"),
    ("resnet18", "layer1", "relu"),
]


@pytest.mark.parametrize(("name", "point", "activation"), CASES)
def test_a_training_with_steps_stays_close_to_one_and_is_settled_to_one(
    name: str, point: str, activation: str
) -> None:
    model = classifier(name, activation=activation).train()
    path = model.path_to(point)
    layers = nn.Sequential(*path)
    projection = PathProjection(path, SHAPE)
    head = nn.LazyLinear(10)
    head(layers(torch.zeros(2, *SHAPE)).flatten(1))
    optimizer = torch.optim.SGD(
        [*layers.parameters(), *head.parameters()], lr=0.05, momentum=0.9, weight_decay=1e-4
    )
    generator = torch.Generator().manual_seed(4)
    grown = []
    for step in range(40):
        x = torch.rand(32, *SHAPE, generator=generator)
        y = torch.randint(10, (32,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(head(layers(x).flatten(1)), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 8 == 0:
            grown.append(bound(path))
        projection.step()
    assert max(grown) > 1.05, "nothing had to be projected"
    assert 0.3 < bound(path) <= 1.03
    projection.settle()
    assert bound(path) <= NEARLY_ONE
    assert model.training


def test_a_step_finds_the_norm_and_keeps_what_is_below_one() -> None:
    torch.manual_seed(1)
    long, short = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
    with torch.no_grad():
        long.weight.mul_(10)
        short.weight.mul_(0.1)
    path = [long, nn.ReLU(), short]
    projection = PathProjection(path, SHAPE)
    before = short.weight.clone()
    bias = long.bias
    projection.step()
    assert 1 - 1e-6 <= lipschitz_bound([long], SHAPE) <= 1.01
    assert torch.equal(short.weight, before)
    assert long.bias is bias
    projection.settle()
    settled = long.weight.clone()
    projection.settle()
    assert torch.equal(long.weight, settled)
    assert torch.equal(short.weight, before)


def test_a_run_with_batch_norm_is_scaled_through_its_weight() -> None:
    torch.manual_seed(1)
    conv, norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
    kernel = conv.weight.clone()
    nn.init.constant_(norm.weight, 30.0)
    path = [nn.Sequential(conv, norm), nn.ReLU()]
    PathProjection(path, SHAPE).settle()
    assert torch.equal(conv.weight, kernel)
    assert (norm.weight < 10).all()
    assert lipschitz_bound(path, SHAPE) == pytest.approx(1, abs=1e-5)


def test_projections_of_equal_networks_are_equal_and_draw_nothing_global() -> None:
    state = torch.get_rng_state()
    weights = []
    for _ in range(2):
        model = classifier("pixeldp_cnn")
        torch.set_rng_state(state)
        projection = PathProjection(model.path_to("layer2"), SHAPE)
        projection.step()
        projection.step()
        projection.settle()
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(torch.cat([p.flatten() for p in model.stem.parameters()]))
    assert torch.equal(*weights)


def test_weights_of_zero_and_broken_weights_are_left_alone() -> None:
    conv = nn.Conv2d(1, 2, 3)
    projection = PathProjection([conv], SHAPE)
    nn.init.zeros_(conv.weight)
    projection.step()
    projection.settle()
    assert (conv.weight == 0).all()
    nn.init.constant_(conv.weight, 1.0)
    for _ in range(10):
        projection.step()
    assert 0.999 < lipschitz_bound([conv], SHAPE) < 1.01
    for broken in (math.nan, math.inf):
        nn.init.constant_(conv.weight, broken)
        projection.step()
        projection.step()
        projection.settle()
        assert not conv.weight.isfinite().any()


def test_the_image_needs_no_projection() -> None:
    model = classifier("small_cnn")
    projection = PathProjection(model.path_to("image"), SHAPE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    projection.step()
    projection.settle()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_residual_blocks_are_refused_by_name() -> None:
    path = classifier("resnet18").path_to("layer2")
    with pytest.raises(InputError, match=r"residual block in layer2\.0, .*sensitivity: measured"):
        PathProjection(path, SHAPE)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.GELU()],
        [nn.MaxPool2d(3, 1), nn.AvgPool2d(2)],
        [nn.BatchNorm2d(1, affine=False)],
        [nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1, affine=False)],
        [classifier("small_cnn").normalization],
    ],
    ids=["activation", "pools", "plain batch norm", "undone", "normalization"],
)
def test_what_cannot_be_scaled_is_refused(layers: list[nn.Module]) -> None:
    with pytest.raises(InputError, match="cannot normalize"):
        PathProjection(layers, SHAPE)


def test_layers_without_a_weight_pass_where_they_are_short_enough() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(1, 8, 3, padding=1)
    path = [nn.MaxPool2d(3, 1), conv, nn.GELU(), nn.AvgPool2d(2), nn.GELU(), nn.Flatten()]
    nn.init.normal_(conv.weight)
    PathProjection(path, SHAPE).settle()
    assert lipschitz_bound([conv], (1, 6, 6)) == pytest.approx(1 / 3 / 1.129**2, rel=1e-5)
    assert lipschitz_bound(path, SHAPE) <= NEARLY_ONE


def test_a_step_is_cheap_beside_a_training_step() -> None:
    torch.manual_seed(1)
    model = build_model("pixeldp_cnn", dataset=dataset_of(1, 28))
    assert isinstance(model, Classifier)
    x, y = torch.rand(128, 1, 28, 28), torch.arange(128) % 10
    projection = PathProjection(model.path_to("layer2"), (1, 28, 28))

    def train() -> None:
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]

    seconds = []
    for action in (train, projection.step):
        action()
        took = []
        for _ in range(10):
            started = time.process_time()
            action()
            took.append(time.process_time() - started)
        seconds.append(min(took))
    assert seconds[1] < 0.5 * seconds[0]


@pytest.mark.parametrize("pair", [leading_pair, squared_pair])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_leading_pair_is_that_of_the_largest_eigenvalue(
    pair: Callable[[Tensor], tuple[Tensor, Tensor]], scale: float
) -> None:
    generator = torch.Generator().manual_seed(6)
    basis, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    matrix = scale * basis @ torch.diag(torch.tensor([3.0, 2.9, 0.0])) @ basis.T
    value, vector = pair(matrix)
    assert float(value) == pytest.approx(3 * scale, rel=1e-5)
    torch.testing.assert_close(
        vector.outer(vector), basis[:, :1] @ basis[:, :1].T, atol=1e-4, rtol=0
    )


def test_of_two_equal_eigenvalues_some_vector_is_given_and_of_zeros_none() -> None:
    value, vector = squared_pair(torch.diag(torch.tensor([2.0, 2.0, 1.0])))
    assert float(value) == pytest.approx(2) and float(vector.norm()) == pytest.approx(1)
    assert [found.abs().max() for found in squared_pair(torch.zeros(3, 3))] == [0.0, 0.0]
