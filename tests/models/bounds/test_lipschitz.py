import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from tests.models.making import dataset_of
from trainables.errors import InputError
from trainables.models import Classifier, build_model
from trainables.models.bounds.lipschitz import CONSTANTS, lipschitz_bound

SHAPE = (1, 8, 8)
PAIRS = 10_000


def classifier(name: str, **settings: str) -> Classifier:
    """Build one of our models for 8x8 images, its batch norms as a training leaves them."""
    torch.manual_seed(1)
    model = build_model(name, dataset=dataset_of(1, 8), **settings)
    assert isinstance(model, Classifier)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval().requires_grad_(False)


def gains(path: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """Return the distance of the outputs over that of the inputs, (B,)."""
    apart = (path(x) - path(other)).flatten(1).norm(dim=1)
    gain: Tensor = apart / (x - other).flatten(1).norm(dim=1)
    return gain


def random_gain(path: nn.Module, pairs: int) -> float:
    """Return the largest gain over random pairs, half of them close to each other."""
    generator = torch.Generator().manual_seed(2)
    largest = 0.0
    for index in range(0, pairs, 500):
        x, other = torch.rand(2, 500, *SHAPE, generator=generator)
        other = x + 0.01 * (other - 0.5) if index % 1000 else other
        largest = max(largest, float(gains(path, x, other).max()))
    return largest


def adversarial_gain(path: nn.Module, steps: int = 60) -> float:
    """Return the largest gain that gradient ascent over both images of eight pairs finds."""
    generator = torch.Generator().manual_seed(3)
    path = path.double()
    x, direction = torch.rand(2, 8, *SHAPE, generator=generator, dtype=torch.float64)
    direction = direction - 0.5
    largest = 0.0
    for _ in range(steps):
        x.requires_grad_(True)
        direction.requires_grad_(True)
        gain = gains(path, x, x + direction)
        largest = max(largest, float(gain.detach().max()))
        for_x, for_direction = torch.autograd.grad(gain.sum(), (x, direction))
        with torch.no_grad():
            x = x + 0.05 * for_x / for_x.std().clamp_min(1e-12)
            direction = direction / direction.std() + 0.3 * for_direction / for_direction.std()
            direction = 0.1 * direction
    return largest


@pytest.mark.parametrize("point", ["layer1", "layer2"])
@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "cnn_bn", "pixeldp_cnn", "resnet18"])
def test_no_pair_of_images_is_driven_further_apart_than_the_bound(name: str, point: str) -> None:
    model = classifier(name)
    path = nn.Sequential(*model.path_to(point))
    # The exact norms of the residual blocks take a minute; the frequencies bound them as well.
    bound = lipschitz_bound(list(path), SHAPE, largest_exact=1024)
    at_random = random_gain(path, PAIRS)
    found = adversarial_gain(path)
    assert at_random < found <= bound
    # Behind one layer ascent comes close: a bound that is too small could not hide.
    assert point == "layer2" or found > 0.5 * bound


@pytest.mark.parametrize("activation", ["relu", "elu", "gelu", "silu", "tanh"])
def test_no_pair_beats_the_bound_under_any_activation(activation: str) -> None:
    model = classifier("cnn_bn", activation=activation)
    path = nn.Sequential(*model.path_to("layer1"))
    assert adversarial_gain(path) <= lipschitz_bound(list(path), SHAPE)


@pytest.mark.parametrize(
    "module", [nn.ReLU(), nn.ELU(), nn.ELU(2.5), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh()]
)
def test_the_constant_of_an_activation_is_its_largest_slope_rounded_up(module: nn.Module) -> None:
    x = torch.linspace(-6, 6, 600_001, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(module(x).sum(), x)
    constant = CONSTANTS[type(module)](module)
    assert constant - 2e-4 < float(slopes.abs().max()) <= constant


@pytest.mark.parametrize(
    ("pool", "windows"),
    [
        (nn.MaxPool2d(2), 1),
        (nn.MaxPool2d(2, 3), 1),
        (nn.MaxPool2d(3, 2, 1), 4),
        (nn.MaxPool2d(3, 1, 1), 9),
        (nn.MaxPool2d((3, 2), (1, 2)), 3),
        (nn.MaxPool2d(3, 2, dilation=2), 9),
    ],
)
def test_a_max_pool_counts_the_windows_that_hold_a_pixel(pool: nn.Module, windows: int) -> None:
    bound = lipschitz_bound([pool], (1, 11, 11))
    assert bound == pytest.approx(math.sqrt(windows))
    peak, blank = torch.zeros(2, 1, 1, 11, 11)
    seen = 0.0
    for place in range(121):
        peak.zero_().view(-1)[place] = 1
        seen = max(seen, float((pool(peak) - pool(blank)).norm()))
    assert seen == pytest.approx(bound)


def test_layers_multiply_and_the_sides_of_a_residual_block_add_up() -> None:
    conv, other = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3)
    chain = [nn.Sequential(conv, nn.Sequential(nn.GELU())), nn.MaxPool2d(2), other]
    first, second = lipschitz_bound([conv], SHAPE), lipschitz_bound([other], (2, 4, 4))
    assert lipschitz_bound(chain, SHAPE) == pytest.approx(first * 1.129 * second)
    block = BasicBlock(2, 4, stride=2, downsample=nn.Conv2d(2, 4, 1, stride=2)).eval()
    branch = [block.conv1, block.bn1, block.relu, block.conv2, block.bn2]
    sides = [lipschitz_bound(side, (2, 8, 8)) for side in (branch, [block.downsample])]
    assert lipschitz_bound([block], (2, 8, 8)) == pytest.approx(sum(sides))
    behind = nn.Conv2d(4, 1, 3)
    both = sum(sides) * lipschitz_bound([behind], (4, 4, 4))
    assert lipschitz_bound([block, behind], (2, 8, 8)) == pytest.approx(both)


def test_a_module_that_stands_twice_counts_twice() -> None:
    shared = nn.Conv2d(1, 1, 3, padding=1)
    once = lipschitz_bound([nn.Sequential(shared, nn.ReLU())], SHAPE)
    relu = nn.ReLU()
    twice = lipschitz_bound([nn.Sequential(shared, relu, shared, relu)], SHAPE)
    assert twice == pytest.approx(once**2)


def test_no_layers_have_the_bound_one_and_broken_weights_none() -> None:
    assert lipschitz_bound([], SHAPE) == 1.0
    assert lipschitz_bound(classifier("small_cnn").path_to("image"), SHAPE) == 1.0
    conv = nn.Conv2d(1, 1, 3)
    nn.init.constant_(conv.weight, math.nan)
    assert lipschitz_bound([conv, nn.ReLU()], SHAPE) == math.inf


def test_the_path_holds_what_is_inserted_before_the_point_and_nothing_at_it() -> None:
    model = classifier("small_cnn")
    model.insert("image", nn.AvgPool2d(1))
    model.insert("layer1", nn.Tanh())
    model.insert("layer2", nn.Dropout())
    x = torch.rand(2, *SHAPE)
    hidden = nn.Sequential(*model.path_to("layer1"))(x)
    assert torch.equal(hidden, model.stem[0](model.normalization(model.points["image"](x))))
    further = nn.Sequential(*model.path_to("layer2"))(x)
    assert torch.equal(further, model.stem[1](torch.tanh(hidden)))
    assert model.path_to("image") == []
    for point in ("features", "layer9"):
        with pytest.raises(InputError, match="known: image, layer1, layer2"):
            model.path_to(point)


def test_group_norm_is_refused_by_name_and_place() -> None:
    path = classifier("small_cnn", norm="group").path_to("layer2")
    with pytest.raises(InputError, match=r"GroupNorm in layer1\.1, .* norm: batch or none"):
        lipschitz_bound(path, SHAPE)
    path = classifier("resnet18", norm="group").path_to("layer2")[2:]
    with pytest.raises(InputError, match=r"GroupNorm in layer2\.0\.bn1"):
        lipschitz_bound(path, (64, 8, 8))


def test_dropout_inserted_before_the_noise_is_refused_by_place() -> None:
    model = classifier("small_cnn")
    model.insert("layer1", nn.Dropout(0.1))
    assert lipschitz_bound(model.path_to("layer1"), SHAPE) > 0
    with pytest.raises(InputError, match=r"Dropout in points\[layer1\], before the noise"):
        lipschitz_bound(model.path_to("layer2"), SHAPE)


def hooked() -> nn.Module:
    """Make layers whose output a hook changes."""
    layers = nn.Sequential(nn.ReLU())
    layers.register_forward_hook(lambda module, inputs, output: 100 * output)
    return layers


class Scaled(nn.Conv2d):
    """A convolution that is more than its weights say."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and scale."""
        return 100 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(8),
        nn.InstanceNorm2d(1),
        nn.Dropout2d(),
        nn.Upsample(scale_factor=2),
        Scaled(1, 1, 3),
        nn.BatchNorm2d(1, track_running_stats=False),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.MaxPool2d(2, return_indices=True),
        nn.utils.spectral_norm(nn.Conv2d(1, 1, 3)),
        hooked(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_has_no_bound_is_refused_by_name(module: nn.Module) -> None:
    kind = type(module).__name__
    with pytest.raises(InputError, match=rf"pixeldp: cannot bound {kind} in 1\.0, .+; .+") as error:
        lipschitz_bound([nn.ReLU(), nn.Sequential(module)], SHAPE)
    assert "\n" not in str(error.value)
