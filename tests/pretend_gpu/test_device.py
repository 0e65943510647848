"""The pretended GPU allows and refuses what CUDA does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytestmark = pytest.mark.pretend_gpu

MIB = 2**20
# Text: the process that collects these tests knows no such device.
DEVICE = "pretend:0"
MIXED = "|".join(
    (
        "Expected all tensors to be on the same device",
        "Trying to pass too many CPU scalars",
        "indices should be either on cpu",
        r"Input type .* and weight type .* should be the same",
    )
)


@pytest.fixture
def gpu() -> Iterator[ModuleType]:
    """Return the device's module, its cache empty and its memory whole."""
    module = torch.get_device_module("pretend")
    module.init()
    module.empty_cache()
    module.set_per_process_memory_fraction(1.0)
    module.reset_peak_memory_stats()
    yield module
    module.set_per_process_memory_fraction(1.0)


def test_it_is_the_accelerator_of_the_process() -> None:
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    assert accelerator.type == "pretend"
    assert torch.accelerator.is_available()
    assert torch.accelerator.device_count() == 1
    assert torch.accelerator.current_device_index() == 0
    torch.accelerator.synchronize()


MIXTURES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda own, cpu: own + cpu,
    "add the other way round": lambda own, cpu: cpu + own,
    "in place": lambda own, cpu: own.mul_(cpu),
    "in place on the host": lambda own, cpu: cpu.mul_(own),
    "where": lambda own, cpu: torch.where(own > 0, own, cpu),
    "matmul": lambda own, cpu: own @ cpu,
    "cat": lambda own, cpu: torch.cat([own, cpu]),
    "stack": lambda own, cpu: torch.stack([own, cpu]),
    "linear": lambda own, cpu: F.linear(own, cpu),
    "loss": lambda own, cpu: F.mse_loss(own, cpu),
    "out": lambda own, cpu: torch.add(own, own, out=cpu),
    "index with the device's": lambda own, cpu: cpu[own.argmax(1)],
    "put into the host": lambda own, cpu: cpu.index_put_((own.argmax(1),), own),
    "gather": lambda own, cpu: own.gather(1, cpu.long()),
    "index_select": lambda own, cpu: own.index_select(0, cpu.argmax(1)),
    "masked_fill": lambda own, cpu: own.masked_fill(cpu > 0, 0.0),
    "two numbers of the host's": lambda own, cpu: torch.addcmul(own, cpu[0, 0], cpu[0, 1]),
    "a written number of the host's": lambda own, cpu: cpu[0, 0].add_(own[0, 0]),
    "a number into matmul": lambda own, cpu: torch.mv(own, cpu[0]),
}


@pytest.mark.parametrize("mix", MIXTURES.values(), ids=MIXTURES)
def test_devices_do_not_mix(mix: Callable[[Tensor, Tensor], object]) -> None:
    own, cpu = torch.ones(3, 3, device=DEVICE), torch.ones(3, 3)
    with pytest.raises(RuntimeError, match=MIXED):
        mix(own, cpu)


@pytest.mark.parametrize("moved", ["input", "weight", "bias"])
def test_a_convolution_wants_all_on_one_device(moved: str) -> None:
    tensors = {
        "input": torch.ones(2, 3, 5, 5, device=DEVICE),
        "weight": torch.ones(4, 3, 3, 3, device=DEVICE),
        "bias": torch.ones(4, device=DEVICE),
    }
    tensors[moved] = tensors[moved].cpu()
    with pytest.raises(RuntimeError, match=MIXED):
        F.conv2d(tensors["input"], tensors["weight"], tensors["bias"])


def test_a_convolution_wants_one_precision() -> None:
    x, weight = torch.ones(2, 3, 5, 5, device=DEVICE), torch.ones(4, 3, 3, 3, device=DEVICE)
    with pytest.raises(RuntimeError, match=r"Input type .* and weight type .* should be the same"):
        F.conv2d(x, weight.bfloat16())


def test_a_number_of_the_host_is_welcome_elementwise() -> None:
    own, number = torch.ones(3, device=DEVICE), torch.tensor(2.0)
    for result in (
        own * number,
        number * own,
        own.clone().mul_(number),
        torch.full_like(own, 7.0).masked_fill(own > 0, number),
        torch.where(own > 0, number, own),
        own.clone().fill_(number),
        torch.maximum(own, number),
    ):
        assert str(result.device) == DEVICE
        assert result.tolist() == [2.0] * 3


def test_indices_of_the_host_reach_into_the_device() -> None:
    own = torch.arange(4.0, device=DEVICE)
    assert own[torch.tensor([3, 1])].tolist() == [3.0, 1.0]
    assert own[torch.tensor([True, False, True, False])].tolist() == [0.0, 2.0]
    own[torch.tensor([0, 1])] = torch.tensor(9.0)
    assert own.tolist() == [9.0, 9.0, 2.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_float_is_allowed(dtype: torch.dtype) -> None:
    x = torch.ones(3, 3, device=DEVICE, dtype=dtype)
    assert (x @ x).dtype == dtype
    assert (x @ x).tolist() == [[3.0] * 3] * 3


def test_generators_belong_to_a_device() -> None:
    own, cpu = torch.Generator(DEVICE), torch.Generator()
    assert str(own.device) == DEVICE
    torch.rand(3, device=DEVICE, generator=own)
    draws: list[Callable[[], Tensor]] = [
        lambda: torch.rand(3, device=DEVICE, generator=cpu),
        lambda: torch.rand(3, generator=own),
        lambda: torch.randperm(3, device=DEVICE, generator=cpu),
        lambda: torch.zeros(3, device=DEVICE).uniform_(generator=cpu),
        lambda: torch.bernoulli(torch.zeros(3, device=DEVICE), generator=cpu),
    ]
    for draw in draws:
        with pytest.raises(RuntimeError, match="device type for generator"):
            draw()


def test_a_seed_repeats_itself_on_the_device_alone() -> None:
    def drawn(device: str) -> list[float]:
        generator = torch.Generator(device).manual_seed(5)
        assert generator.initial_seed() == 5
        return torch.rand(4, device=device, generator=generator).tolist()

    assert drawn(DEVICE) == drawn(DEVICE)
    assert drawn(DEVICE) != drawn("cpu")


def test_a_state_of_one_device_is_no_state_of_the_other() -> None:
    own, cpu = torch.Generator(DEVICE), torch.Generator()
    state = own.get_state()
    expected = torch.rand(4, device=DEVICE, generator=own).tolist()
    own.set_state(state)
    assert torch.rand(4, device=DEVICE, generator=own).tolist() == expected
    assert own.clone_state().initial_seed() == own.initial_seed()
    for generator, foreign in ((own, cpu.get_state()), (cpu, state)):
        with pytest.raises(RuntimeError, match=r"RNG state is wrong size|RNG state size to be"):
            generator.set_state(foreign)


def test_the_global_generator_is_the_devices_own(gpu: ModuleType) -> None:
    del gpu
    cpu_state = torch.get_rng_state()
    ones = torch.ones(64, device=DEVICE)
    torch.manual_seed(3)
    first = [torch.rand(4, device=DEVICE), F.dropout(ones)]
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(3).get_state())
    again = [torch.rand(4, device=DEVICE), F.dropout(ones)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(F.dropout(ones), again[1])
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(3).get_state())
    torch.set_rng_state(cpu_state)


def test_fork_rng_restores_the_device() -> None:
    torch.manual_seed(1)
    with torch.random.fork_rng(devices=[0], device_type="pretend"):
        expected = torch.rand(4, device=DEVICE)
    assert torch.equal(torch.rand(4, device=DEVICE), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fresh_memory_is_poisoned(dtype: torch.dtype) -> None:
    assert torch.empty(8, device=DEVICE, dtype=dtype).isnan().all()
    assert torch.empty(8, device=DEVICE, dtype=torch.int64).abs().min() > 2**32


def test_memory_is_counted_and_its_peak_starts_anew(gpu: ModuleType) -> None:
    before = gpu.memory_allocated()
    block = torch.empty(8 * MIB, dtype=torch.uint8, device=DEVICE)
    assert gpu.memory_allocated(DEVICE) - before == 8 * MIB
    del block
    assert gpu.memory_allocated() == before
    assert gpu.max_memory_allocated() - before == 8 * MIB
    gpu.reset_peak_memory_stats(DEVICE)
    assert gpu.max_memory_allocated() == before


def test_what_is_reserved_falls_only_where_the_cache_is_emptied(gpu: ModuleType) -> None:
    before = gpu.memory_reserved()
    torch.empty(8 * MIB, dtype=torch.uint8, device=DEVICE)
    gpu.reset_peak_memory_stats()
    assert gpu.memory_reserved() - before == 8 * MIB
    assert gpu.max_memory_reserved() - before == 8 * MIB
    torch.empty(4 * MIB, dtype=torch.uint8, device=DEVICE)
    assert gpu.memory_reserved() - before == 8 * MIB
    gpu.empty_cache()
    assert gpu.memory_reserved() == gpu.memory_allocated()
    assert gpu.max_memory_reserved() - before == 8 * MIB


def test_the_driver_counts_the_context_too(gpu: ModuleType) -> None:
    free, total = gpu.mem_get_info()
    assert total == 16_000 * MIB
    assert total - free - gpu.memory_reserved() == 500 * MIB
    torch.empty(8 * MIB, dtype=torch.uint8, device=DEVICE)
    assert gpu.mem_get_info(DEVICE) == (free - 8 * MIB, total)


def test_a_cap_is_held(gpu: ModuleType) -> None:
    gpu.set_per_process_memory_fraction(32 / 16_000, DEVICE)
    kept = torch.empty(20 * MIB, dtype=torch.uint8, device=DEVICE)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 16\.0 MiB.*32\.0 MiB"):
        torch.empty(16 * MIB, dtype=torch.uint8, device=DEVICE)
    del kept
    torch.empty(16 * MIB, dtype=torch.uint8, device=DEVICE)
    assert gpu.max_memory_reserved() <= 32 * MIB


def test_the_whole_device_is_not_endless(gpu: ModuleType) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        torch.empty(16_000 * MIB, dtype=torch.uint8, device=DEVICE)


def test_a_result_of_a_kernel_counts(gpu: ModuleType) -> None:
    x = torch.ones(MIB, device=DEVICE)
    before = gpu.memory_allocated()
    kept = x.exp()
    assert gpu.memory_allocated() - before == 4 * MIB
    view = kept[5:].view(-1, 1)
    assert gpu.memory_allocated() - before == 4 * MIB
    del view


@pytest.mark.parametrize("as_text", [True, False])
def test_a_device_without_an_index_is_refused_where_cuda_refuses_it(
    gpu: ModuleType, as_text: bool
) -> None:
    device = "pretend" if as_text else torch.device("pretend")
    words = "Expected a torch.device with a specified index or an integer, but got:pretend"
    with pytest.raises(ValueError, match=words):
        gpu.set_per_process_memory_fraction(0.5, device)
    with pytest.raises(ValueError, match=words):
        gpu.set_device(device)
    assert gpu.memory_allocated(device) == gpu.memory_allocated(0)
    gpu.reset_peak_memory_stats(device)
    gpu.synchronize(device)
    assert gpu.get_device_name(device) == "Pretended GPU"


def test_other_devices_and_fractions_are_refused(gpu: ModuleType) -> None:
    with pytest.raises(ValueError, match="Expected a pretend device, but got: cpu"):
        gpu.memory_allocated("cpu")
    with pytest.raises(AssertionError, match="Invalid device id"):
        gpu.get_device_name(1)
    with pytest.raises(TypeError, match="must be `float`"):
        gpu.set_per_process_memory_fraction(1)
    with pytest.raises(ValueError, match="Allowed range: 0~1"):
        gpu.set_per_process_memory_fraction(1.5)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(3, device="pretend:1")
    with gpu.device(DEVICE), pytest.raises(AssertionError, match="Invalid device id"):
        gpu.device(1)


def test_a_forked_process_cannot_use_it(gpu: ModuleType) -> None:
    del gpu
    child = os.fork()
    if child == 0:
        try:
            torch.zeros(3, device=DEVICE)
        except RuntimeError as error:
            os._exit(0 if "forked subprocess" in str(error) else 1)
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


BEFORE_USE = """
import json, torch
gpu = torch.get_device_module("pretend")
found = [gpu.is_initialized(), gpu.memory_allocated(0), gpu.max_memory_reserved(0)]
gpu.empty_cache()
torch.manual_seed(0)
found.append(gpu.is_initialized())
try:
    gpu.reset_peak_memory_stats(torch.device("pretend", 0))
except RuntimeError as error:
    found.append(str(error))
gpu.reset_peak_memory_stats("pretend")
found.append(gpu.is_initialized())
print(json.dumps(found))
"""


def test_before_it_is_used_it_answers_as_cuda_does() -> None:
    words = "Invalid device argument 0: did you call init?"
    assert _answer(BEFORE_USE) == [False, 0, 0, False, words, True]


HIDDEN = """
import json, torch
gpu = torch.get_device_module("pretend")
found = [torch.accelerator.is_available(), torch.accelerator.device_count(), gpu.is_available()]
try:
    torch.zeros(3, device="pretend")
except RuntimeError as error:
    found.append(str(error))
print(json.dumps(found))
"""


def test_a_process_that_may_see_no_gpu_has_none() -> None:
    answer = _answer(HIDDEN, CUDA_VISIBLE_DEVICES="")
    assert answer == [False, 0, False, "No pretended GPUs are available"]


def _answer(script: str, **environment: str) -> object:
    """Return what a new process prints, with the device in it as in this one."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def test_numpy_does_not_see_the_device() -> None:
    with pytest.raises(TypeError, match=r"can't convert pretend.*to numpy"):
        torch.zeros(3, device=DEVICE).numpy()
