"""Autocast, the count of traffic and torch's own machinery work on the pretended GPU."""

import copy
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.pretend_gpu.counting import counted

pytestmark = pytest.mark.pretend_gpu

DEVICE = "pretend:0"


def test_autocast_computes_as_cuda_does() -> None:
    x = torch.rand(4, 3, 8, 8, device=DEVICE)
    y = torch.zeros(4, dtype=torch.long, device=DEVICE)
    conv, head = nn.Conv2d(3, 4, 3).to(DEVICE), nn.Linear(144, 10).to(DEVICE)
    with torch.autocast("pretend", dtype=torch.bfloat16):
        hidden = conv(x)
        logits = head(hidden.flatten(1))
        assert hidden.dtype == logits.dtype == torch.bfloat16
        for wide in (
            F.cross_entropy(logits, y),
            logits.softmax(1),
            logits.exp(),
            logits.norm(),
            logits.sum(),
            logits.logsumexp(1),
            F.mse_loss(logits, logits),
            torch.addcmul(logits, logits, logits.float()),
        ):
            assert wide.dtype == torch.float32
        assert torch.relu(logits).dtype == torch.bfloat16
        assert (x.double().flatten(1) @ x.double().flatten(1).T).dtype == torch.float64
        with torch.autocast("pretend", enabled=False):
            assert conv(x).dtype == torch.float32
    assert conv(x).dtype == torch.float32


def test_cast_weights_are_kept_until_the_outermost_autocast_ends() -> None:
    # A trap of torch's, and so one of CUDA's: the second pass does not see the new weights.
    head, x = nn.Linear(2, 1).to(DEVICE), torch.ones(1, 2, device=DEVICE)
    with torch.autocast("pretend", enabled=False):
        with torch.autocast("pretend", dtype=torch.bfloat16):
            before = head(x)
        with torch.no_grad():
            head.weight.add_(10)
        with torch.autocast("pretend", dtype=torch.bfloat16):
            assert torch.equal(head(x), before)
        with torch.autocast("pretend", dtype=torch.bfloat16, cache_enabled=False):
            assert not torch.equal(head(x), before)


def test_binary_cross_entropy_is_banned_under_autocast() -> None:
    p = torch.full((3,), 0.5, device=DEVICE)
    assert F.binary_cross_entropy(p, p) > 0
    with (
        torch.autocast("pretend", dtype=torch.bfloat16),
        pytest.raises(RuntimeError, match="unsafe to autocast"),
    ):
        F.binary_cross_entropy(p, p)


LISTS = {
    "kLowerPrecision": "LOWER_PRECISION_FP",
    "kSinglePrecision": "FP32",
    "kSinglePrecisionResult": "FP32_SET_OPT_DTYPE",
    "kWidest": "PROMOTE",
}


@pytest.mark.parametrize("ours", LISTS)
def test_the_lists_of_autocast_are_those_of_torch(ours: str) -> None:
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    macro = re.search(rf"AT_FORALL_{LISTS[ours]}\(_\)(.*?)\n\n", header.read_text(), re.DOTALL)
    source = (Path(__file__).parent / "autocast.h").read_text()
    mine = re.search(rf"{ours}\[\] = {{(.*?)}};", source, re.DOTALL)
    assert macro is not None and mine is not None
    theirs = {".".join(re.split(r",\s*", name)) for name in re.findall(r"_\((.*?)\)", macro[1])}
    extra = {"norm.Scalar", "norm.ScalarOpt_dim"} if ours == "kSinglePrecision" else set()
    assert set(re.findall(r'"(.*?)"', mine[1])) - extra == theirs


# Traffic.


def _traffic(work: Callable[[Tensor], object]) -> tuple[int, int]:
    x = torch.rand(6, 5, device=DEVICE)
    with counted() as traffic:
        work(x)
    return traffic.reads, traffic.writes


TRAFFIC: dict[str, tuple[Callable[[Tensor], object], tuple[int, int]]] = {
    "arithmetic": (lambda x: (x @ x.T).softmax(1).mean(), (0, 0)),
    "a mask as a number": (lambda x: x * (x > 0.5), (0, 0)),
    "where": (lambda x: torch.where(x > 0.5, x, 0.0), (0, 0)),
    "sorting": (lambda x: (x.sort(), x.topk(2), x.argmax(1)), (0, 0)),
    "drawing": (lambda x: (torch.rand_like(x), torch.randperm(5, device=x.device)), (0, 0)),
    "indexing": (lambda x: x[x.argmax(0)], (0, 0)),
    "filling": (lambda x: torch.full((3,), 0.5, device=x.device), (0, 0)),
    "a number of the host's": (lambda x: x + torch.tensor(2.0), (0, 0)),
    "a mask filled with a number": (lambda x: x.__setitem__(x > 0.5, 0.0), (0, 0)),
    "masked_fill": (lambda x: x.masked_fill(x > 0.5, 0.0), (0, 0)),
    "repeats of a known sum": (
        lambda x: x.repeat_interleave(torch.ones_like(x[:, 0]).long(), 0, output_size=6),
        (0, 0),
    ),
    "a copy that is not waited for": (lambda x: x.to("cpu", non_blocking=True), (0, 0)),
    "item": (lambda x: x.sum().item(), (1, 0)),
    "float": (lambda x: float(x.sum()), (1, 0)),
    "if": (lambda x: bool((x > 2).any()), (1, 0)),
    "tolist": (lambda x: x.tolist(), (1, 0)),
    "cpu": (lambda x: x.cpu(), (1, 0)),
    "nonzero": (lambda x: x.nonzero(), (1, 0)),
    "a mask": (lambda x: x[x > 0.5], (1, 0)),
    "a mask in place": (lambda x: x.__setitem__(x > 0.5, torch.zeros_like(x[0, 0])), (1, 0)),
    "masked_select": (lambda x: x.masked_select(x > 0.5), (1, 0)),
    "unique": (lambda x: torch.unique(x), (1, 0)),
    "equal": (lambda x: torch.equal(x, x), (1, 0)),
    "allclose": (lambda x: torch.allclose(x, x), (1, 0)),
    "bincount": (lambda x: x.long().flatten().bincount(minlength=4), (1, 0)),
    "repeats": (lambda x: x.repeat_interleave(torch.ones_like(x[:, 0]).long(), 0), (1, 0)),
    "a filling of the device's": (lambda x: x.masked_fill(x > 0.5, x[0, 0]), (1, 0)),
    "a tensor from Python": (lambda x: torch.tensor([1.0, 2.0], device=x.device), (0, 1)),
    "a number from Python": (lambda x: torch.as_tensor(0.5, device=x.device), (0, 1)),
    "to": (lambda x: torch.ones(3).to(x), (0, 1)),
    "indices of the host's": (lambda x: x[torch.tensor([0, 1])], (0, 1)),
    "indices of the host's in place": (
        lambda x: x.__setitem__(torch.tensor([0, 1]), torch.zeros_like(x[:2])),
        (0, 1),
    ),
}


@pytest.mark.parametrize(("work", "expected"), TRAFFIC.values(), ids=TRAFFIC)
def test_traffic_is_counted(work: Callable[[Tensor], object], expected: tuple[int, int]) -> None:
    assert _traffic(work) == expected


def test_traffic_is_named_by_operator_and_line() -> None:
    x = torch.rand(6, 5, device=DEVICE)
    with counted(where=True) as traffic:
        x.sum().item()
        x[x > 0.5]
    assert traffic.by_operator == {"read aten::_local_scalar_dense": 1, "read aten::nonzero": 1}
    assert {line.rpartition(":")[0] for line in traffic.by_line} == {
        f"read aten::_local_scalar_dense {__file__}",
        f"read aten::nonzero {__file__}",
    }


def test_a_read_in_the_backward_pass_is_counted_too() -> None:
    x = torch.rand(6, 5, device=DEVICE, requires_grad=True)
    total = x[x.detach() > 0.5].sum()
    with counted(where=True) as traffic:
        torch.autograd.backward(total)
    assert traffic.by_line == {"read aten::_index_put_impl_ in autograd's thread": 1}


def test_a_network_trains_as_on_the_cpu_without_a_read() -> None:
    def trained(device: str) -> tuple[list[Tensor], int]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        net.append(nn.Linear(144, 10)).to(device).to(memory_format=torch.channels_last)
        x, y = torch.rand(8, 3, 8, 8).to(device), torch.arange(8).to(device)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        with counted() as traffic:
            for _ in range(5):
                optimiser.zero_grad()
                torch.autograd.backward(F.cross_entropy(net(x), y))
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimiser.step()
        return [p.detach().cpu() for p in net.parameters()], traffic.reads

    (own, reads), (cpu, _) = trained(DEVICE), trained("cpu")
    assert reads == 0
    for a, b in zip(own, cpu, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_tensors_are_saved_and_loaded_across_devices() -> None:
    file = io.BytesIO()
    torch.save({"x": torch.arange(3.0, device=DEVICE)}, file)
    for target in ("cpu", "pretend:0"):
        file.seek(0)
        loaded = torch.load(file, map_location=target, weights_only=True)["x"]
        assert str(loaded.device) == target
        assert loaded.tolist() == [0.0, 1.0, 2.0]


def test_modules_are_copied() -> None:
    net = nn.Linear(3, 2).to(DEVICE)
    twin = copy.deepcopy(net)
    assert str(twin.weight.device) == DEVICE
    assert torch.equal(twin.weight, net.weight)
    twin.weight.data.zero_()
    assert not torch.equal(twin.weight, net.weight)


def test_views_share_memory_and_outputs_are_resized() -> None:
    x = torch.zeros(4, 3, device=DEVICE)
    x.T[1, 2:] = 5.0
    x.unfold(0, 2, 2).select(0, 0).add_(1.0)
    assert x.tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 5.0, 0.0], [0.0, 5.0, 0.0]]
    out = torch.empty(0, device=DEVICE)
    torch.sum(x, 1, out=out)
    assert out.tolist() == [3.0, 3.0, 5.0, 5.0]
    out.resize_(6).zero_()
    assert out.tolist() == [0.0] * 6
    out.set_(x.untyped_storage(), 0, (3,), (1,))
    assert out.tolist() == [1.0] * 3
    out.data = x[2]
    assert out.tolist() == [0.0, 5.0, 0.0]


def test_pinned_memory_is_memory() -> None:
    x = torch.arange(3.0).pin_memory()
    assert x.is_pinned()
    assert not torch.arange(3.0).is_pinned()
    assert x.to(DEVICE, non_blocking=True).tolist() == [0.0, 1.0, 2.0]


def test_functional_gradients_work() -> None:
    w = torch.rand(5, device=DEVICE)
    x = torch.rand(4, 5, device=DEVICE)
    rows = torch.func.vmap(torch.func.grad(lambda w, row: (w * row).sin().sum()), (None, 0))(w, x)
    torch.testing.assert_close(rows, (w * x).cos() * x)
