import copy
import math

import pytest
import torch
from torch import Tensor, nn

from trainables.errors import InputError
from trainables.models.bounds.operator_norm import operator_norm
from trainables.models.contract import Normalization

SEED = 3


def dense_norm(modules: list[nn.Module], shape: tuple[int, ...]) -> float:
    """Root of the largest eigenvalue of the Gram matrix of the modules' own Jacobian at a point."""
    net = nn.Sequential(*copy.deepcopy(modules)).double().eval()

    def flat(x: Tensor) -> Tensor:
        out: Tensor = net(x[None])
        return out.flatten()

    point = torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
    jacobian = torch.func.jacrev(flat)(point).detach().flatten(1)
    return math.sqrt(float(torch.linalg.eigvalsh(jacobian.T @ jacobian)[-1]))


def trained_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with statistics and weights as a training leaves them, some weights negative."""
    norm = nn.BatchNorm2d(channels)
    norm.running_mean = torch.randn(channels)
    norm.running_var = torch.rand(channels) + 0.1
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3},
    {"kernel_size": 5, "padding": 2, "stride": 2},
    {"kernel_size": 5, "padding": 4, "stride": 3},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 1, "stride": 3},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 3, "dilation": 3, "stride": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": (3, 5), "padding": (0, 2), "stride": (1, 2), "dilation": (2, 1), "groups": 2},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 7, "padding": 6, "stride": 2, "groups": 4},
]
SHAPE = (4, 9, 8)


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_the_norm_is_that_of_the_jacobian_and_the_frequencies_bound_it(
    settings: dict[str, int],
) -> None:
    torch.manual_seed(SEED)
    around: list[list[nn.Module]] = [
        [],
        [Normalization((0.4, 0.5, 0.6, 0.5), (0.1, 0.5, 0.3, 2.0))],
        [trained_norm(4)],
    ]
    for before in around:
        for behind in ([], [trained_norm(8)], [nn.Identity(), trained_norm(8), trained_norm(8)]):
            modules: list[nn.Module] = [*before, nn.Conv2d(4, 8, **settings), *behind]  # type: ignore[arg-type]
            expected = dense_norm(modules, SHAPE)
            assert operator_norm(modules, SHAPE) == pytest.approx(expected, rel=1e-6)
            assert operator_norm(modules, SHAPE, largest_exact=0) >= expected


@pytest.mark.parametrize(("kernel", "within"), [(3, 1.02), (5, 1.05)])
def test_at_stride_one_the_frequencies_are_within_a_few_percent(kernel: int, within: float) -> None:
    torch.manual_seed(SEED)
    conv = nn.Conv2d(2, 6, kernel, padding=kernel // 2)
    exact, bound = (operator_norm([conv], (2, 24, 24), largest_exact=n) for n in (8192, 0))
    assert exact <= bound <= within * exact


def test_a_strided_bound_is_far_below_that_of_the_unstrided_convolution() -> None:
    torch.manual_seed(SEED)
    strided = nn.Conv2d(1, 32, 5, stride=2, padding=2)
    full = nn.Conv2d(1, 32, 5, padding=2)
    full.load_state_dict(strided.state_dict())
    shape = (1, 28, 28)
    exact, bound = (operator_norm([strided], shape, largest_exact=n) for n in (8192, 0))
    assert exact <= bound <= 1.05 * exact
    assert operator_norm([full], shape, largest_exact=0) > 1.3 * bound


CHAINS: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "dense": ([nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5)], (2, 6, 6)),
    "wide dense": ([nn.Linear(6, 50), nn.Linear(50, 7)], (6,)),
    "dense on rows": ([nn.BatchNorm2d(2), nn.Linear(6, 9)], (2, 6, 6)),
    "convolution, dense": (
        [
            Normalization((0.5, 0.1), (0.2, 3.0)),
            nn.Conv2d(2, 3, 3),
            nn.BatchNorm2d(3),
            nn.Flatten(),
            nn.Linear(48, 10),
        ],
        (2, 6, 6),
    ),
    "scales before a dense layer": (
        [nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(72), nn.Linear(72, 10)],
        (2, 6, 6),
    ),
    "average": ([nn.AvgPool2d(2), nn.BatchNorm2d(2)], (2, 6, 6)),
    "overlapping average": ([nn.AvgPool2d(3, 1, 1, count_include_pad=False)], (1, 6, 7)),
    "ragged average": ([nn.AvgPool2d(2, ceil_mode=True)], (1, 5, 5)),
    "adaptive average": ([nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(3), nn.Flatten()], (2, 7, 7)),
    "two convolutions": ([nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3, stride=2)], (2, 7, 7)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_have_the_norm_of_the_product(name: str) -> None:
    torch.manual_seed(SEED)
    modules, shape = CHAINS[name]
    for module in modules:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.uniform_(0.1, 2)
    expected = dense_norm(modules, shape)
    assert operator_norm(modules, shape) == pytest.approx(expected, rel=1e-6)
    assert operator_norm(modules, shape, largest_exact=0) >= expected


def test_a_lone_scale_and_averages_without_overlap_are_exact_at_any_size() -> None:
    shape = (2, 300, 300)
    assert operator_norm([Normalization((0.0, 0.0), (0.5, 0.25))], shape) == pytest.approx(4)
    assert operator_norm([nn.AvgPool2d(2)], shape) == pytest.approx(0.5)
    assert operator_norm([nn.Flatten()], shape) == pytest.approx(1)


def test_a_bound_of_a_large_map_needs_no_matrix_of_its_size() -> None:
    torch.manual_seed(SEED)
    conv = nn.Conv2d(3, 8, 3, padding=1)
    large, small = (operator_norm([conv], (3, side, side)) for side in (128, 64))
    assert small < large < 1.01 * small


def test_measuring_changes_nothing_and_ignores_the_mode() -> None:
    torch.manual_seed(SEED)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), trained_norm(3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    norms = [operator_norm(list(net.train(mode)), (2, 6, 6)) for mode in (True, False, True)]
    with torch.no_grad():
        norms.append(operator_norm(list(net), (2, 6, 6)))
    assert len(set(norms)) == 1
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, value in net.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_the_memory_format_does_not_matter() -> None:
    torch.manual_seed(SEED)
    conv = nn.Conv2d(4, 6, 3, stride=2, groups=2)
    norms = [operator_norm([conv], SHAPE, largest_exact=n) for n in (8192, 0)]
    conv.to(memory_format=torch.channels_last)
    again = [operator_norm([conv], SHAPE, largest_exact=n) for n in (8192, 0)]
    assert again == pytest.approx(norms, rel=1e-12)


def test_weights_that_are_not_finite_have_no_finite_norm() -> None:
    conv = nn.Conv2d(1, 1, 3)
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = math.nan
    assert operator_norm([conv], (1, 6, 6)) == math.inf
    with torch.no_grad():
        conv.weight.zero_()
    assert operator_norm([conv], (1, 6, 6)) == 0


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padding_mode is 'reflect'"),
        (nn.BatchNorm2d(1, track_running_stats=False), "no running statistics"),
        (nn.ReLU(), "ReLU has no operator norm: it is not affine"),
    ],
)
def test_modules_without_a_norm_are_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(InputError, match=said):
        operator_norm([module], (1, 6, 6))
