"""`torch.pretend`: what torch.cuda offers, under torch.cuda's rules.

The rules are those of torch/cuda/__init__.py, memory.py and random.py in torch 2.15:

- `set_device` and `set_per_process_memory_fraction` refuse a device without an index
  (`_get_device_index(device)`); all else here takes the current one (`optional=True`).
- Before the device is initialised, memory statistics are 0 and `empty_cache` does nothing, but
  `reset_peak_memory_stats` of a device with an index is refused by the allocator. Whatever asks for
  the current device initialises it.
- No device is there where `CUDA_VISIBLE_DEVICES` is empty as the process first asks.
- A process that was forked from one that had used the device cannot use it.
"""

import torch
from torch import Tensor
from torch.types import Device

_ops = torch.ops.pretend
default_generators: tuple[torch.Generator, ...] = (_ops.default_generator(),)
DEVICE_NAME = "Pretended GPU"


def is_available() -> bool:
    return device_count() > 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    del including_emulation
    return is_available()


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.bfloat16, torch.float16]


def is_initialized() -> bool:
    return bool(_ops.initialized())


def _is_in_bad_fork() -> bool:
    return bool(_ops.forked())


def init() -> None:
    """Initialise the device."""
    _lazy_init()


def _lazy_init() -> None:
    _ops.initialize()


def device_count() -> int:
    return int(_ops.visible())


def current_device() -> int:
    _lazy_init()
    return 0


class device:  # noqa: N801 - torch.cuda's name
    """Selects a device within a block; there is one to select."""

    def __init__(self, device: Device) -> None:
        _check_index(_index(device, optional=True))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def set_device(device: Device) -> None:
    _check_index(_index(device, optional=False))


def get_device_name(device: Device = None) -> str:
    _lazy_init()
    _check_index(_index(device, optional=True))
    return DEVICE_NAME


def synchronize(device: Device = None) -> None:
    _lazy_init()
    _check_index(_index(device, optional=True))


def memory_allocated(device: Device = None) -> int:
    return _statistic("allocated_bytes.all.current", device)


def max_memory_allocated(device: Device = None) -> int:
    return _statistic("allocated_bytes.all.peak", device)


def memory_reserved(device: Device = None) -> int:
    return _statistic("reserved_bytes.all.current", device)


def max_memory_reserved(device: Device = None) -> int:
    return _statistic("reserved_bytes.all.peak", device)


def reset_peak_memory_stats(device: Device = None) -> None:
    torch._C._accelerator_resetPeakStats(_index(device, optional=True))


def empty_cache() -> None:
    if is_initialized():
        torch._C._accelerator_emptyCache()


def mem_get_info(device: Device = None) -> tuple[int, int]:
    _lazy_init()
    free, total = torch._C._accelerator_getMemoryInfo(_index(device, optional=True))
    return free, total


def set_per_process_memory_fraction(fraction: float, device: Device = None) -> None:
    _lazy_init()
    _check_index(_index(current_device() if device is None else device, optional=False))
    if not isinstance(fraction, float):
        raise TypeError("Invalid type for fraction argument, must be `float`")
    if fraction < 0 or fraction > 1:
        raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    _ops.set_fraction(fraction)


def get_rng_state(device: Device = "pretend") -> Tensor:
    _lazy_init()
    return default_generators[_index(device, optional=True)].get_state()


def set_rng_state(new_state: Tensor, device: Device = "pretend") -> None:
    default_generators[_index(device, optional=True)].set_state(new_state)


def manual_seed(seed: int) -> None:
    default_generators[0].manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    manual_seed(seed)


def _statistic(name: str, device: Device) -> int:
    if not is_initialized():
        return 0
    return int(torch.accelerator.memory_stats(_index(device, optional=True)).get(name, 0))


def _index(device: Device, *, optional: bool) -> int:
    """Return a device's index, as torch.cuda._utils._get_device_index does."""
    if isinstance(device, int):
        return device
    if isinstance(device, str):
        device = torch.device(device)
    if device is not None and device.type != "pretend":
        raise ValueError(f"Expected a pretend device, but got: {device}")
    if device is not None and device.index is not None:
        return int(device.index)
    if not optional:
        raise ValueError(
            f"Expected a torch.device with a specified index or an integer, but got:{device}"
        )
    return current_device()


def _check_index(index: int) -> None:
    if index >= device_count():
        raise AssertionError("Invalid device id")
