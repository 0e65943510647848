"""The device seam: everything that torch does otherwise on an accelerator than on the CPU.

The rest of the project names no accelerator. What it needs of one goes through here, to torch's own
module of that accelerator: `torch.cuda`, or that of a backend which is registered with torch from
outside. Devices carry an index, since CUDA refuses one without where it sets a memory limit.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from trainables.errors import DeviceError

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
_UNTRIED = ("mps", "xpu", "mtia")
"""Accelerators that torch knows and on which nobody has run this project (mps lacks float64)."""
_OUT_OF_MEMORY = (
    "out of memory",  # torch's allocator, and the driver
    "_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS found no room for its handle
    "unable to find an engine",  # cuDNN found no room for the workspace of any convolution
)


def backend(device: torch.device) -> Any:
    """Return torch's module of an accelerator's functions, such as torch.cuda."""
    return torch.get_device_module(device)


def accelerated(device: torch.device) -> bool:
    """Return whether a device is an accelerator."""
    return device.type != "cpu"


def accelerator_count() -> int:
    """Return the number of accelerators that torch can compute on here.

    A driver that is too old shows its GPUs all the same; they count as none.
    """
    kind = _kind()
    return int(backend(kind).device_count()) if kind and backend(kind).is_available() else 0


def why_unusable() -> str | None:
    """Return why the accelerators here cannot be used; None if they can, or if there is none."""
    kind = _kind()
    if kind is None or backend(kind).is_available() or backend(kind).device_count() == 0:
        return None
    return _refusal(kind) or "torch calls none of them available"


def first_accelerator() -> torch.device | None:
    """Return the accelerator that this process computes on, initialised; None if there is none."""
    kind = _kind()
    if kind is None or accelerator_count() == 0:
        return None
    return indexed(kind)


def indexed(device: torch.device) -> torch.device:
    """Return a device with its index, an accelerator initialised."""
    if not accelerated(device):
        return device
    # Not every call on an indexed device initialises CUDA, and before that its allocator refuses
    # the index.
    backend(device).init()
    index = backend(device).current_device() if device.index is None else device.index
    return torch.device(device.type, index)


def given_device(gpus: float | None) -> torch.device:
    """Return the device of a trial that was given so many GPUs: the CPU for none of them.

    None: nobody shares GPUs out, so that one that can be used is. Raises DeviceError where a GPU
    was given and torch cannot use it.
    """
    if gpus == 0:
        return CPU
    found, reason = first_accelerator(), why_unusable()
    if found is not None:
        return found
    if gpus is not None:
        raise DeviceError(
            f"the trial was given {gpus:g} of a GPU that torch cannot use: "
            f"{reason or 'it sees none'}; fix that, or assign trials none (--gpus-per-trial 0)"
        )
    if reason is not None:
        logger.warning("computing on the CPU, since the GPU here cannot be used: %s", reason)
    return CPU


def device_name(device: torch.device) -> str:
    """Return the name of a device for people: that of the GPU's model, or cpu."""
    return str(backend(device).get_device_name(device)) if accelerated(device) else "cpu"


def accelerator_names() -> list[str]:
    """Return the name of each accelerator that can be used here."""
    kind = _kind()
    if kind is None:
        return []
    return [device_name(torch.device(kind.type, i)) for i in range(accelerator_count())]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was queued; only then does a clock tell the truth."""
    if accelerated(device):
        backend(device).synchronize(device)


def training_precision(device: torch.device) -> AbstractContextManager[None]:
    """Compute a training's forward pass in bfloat16 on an accelerator, in float32 on the CPU."""
    return bfloat16(device) if accelerated(device) else torch.autocast(device.type, enabled=False)


def bfloat16(device: torch.device) -> AbstractContextManager[None]:
    """Compute products and convolutions in bfloat16, with the weights as they are at each one.

    torch empties its cache of cast weights at the end of the outermost autocast alone. Inside
    `full_precision`, or a caller's own, a training would keep the casts of its first weights and
    learn nothing, so there is no cache.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in float32, whatever stands around: no autocast, no TF32, no bfloat16 products.

    Everything that is measured runs in it. torch's default lets cuDNN round the inputs of a
    convolution to TF32, an error of some 5e-4 in the scores that certificates count.
    """
    operators, older = _float32_operators(), _older_flags()
    before = [operator.fp32_precision for operator in operators]
    # The older flags first: they set the newer ones, and torch refuses to read them where they
    # differ.
    _set_older_flags(False, "highest")
    for operator in operators:
        operator.fp32_precision = "ieee"
    try:
        # Much is computed on the CPU wherever the model lies, and that has an autocast of its own.
        with torch.autocast(device.type, enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        if older is not None:
            _set_older_flags(*older)
        for operator, precision in zip(operators, before, strict=True):
            operator.fp32_precision = precision


def precisions(device: torch.device) -> dict[str, str]:
    """Return what a record says of `training_precision` and `full_precision`."""
    training = "bfloat16" if accelerated(device) else "float32"
    return {"training_precision": training, "measuring_precision": "float32"}


def forked_rng(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's global generators at the end, the device's own among them."""
    if not accelerated(device):
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def rng_state(device: torch.device) -> Tensor | None:
    """Return the state of an accelerator's global generator; None for the CPU."""
    if not accelerated(device):
        return None
    state: Tensor = backend(device).get_rng_state(device)
    return state


def set_rng_state(device: torch.device, state: Tensor) -> None:
    """Set the state of an accelerator's global generator."""
    backend(device).set_rng_state(state, device)


def ran_out_of_memory(error: str) -> bool:
    """Return whether an error's text says that an accelerator's memory was spent."""
    return any(text in error for text in _OUT_OF_MEMORY)


def _kind() -> torch.device | None:
    """Return the accelerator, without an index, that this torch was built for or was given."""
    found = torch.accelerator.current_accelerator()
    return None if found is None or found.type in _UNTRIED else found


def _refusal(kind: torch.device) -> str | None:
    """Return in a line why an accelerator cannot be initialised; None if it can."""
    try:
        backend(kind).init()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        return " ".join(str(error).split())
    return None


def _older_flags() -> tuple[bool, str] | None:
    """Return torch's older flags for cuDNN and products; None where the newer ones disagree."""
    try:
        return bool(torch.backends.cudnn.allow_tf32), torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_older_flags(cudnn_tf32: bool, matmul: str) -> None:
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
    torch.set_float32_matmul_precision(matmul)


def _float32_operators() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    )
