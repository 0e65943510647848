"""Random numbers that the host needs to know, drawn without waiting for a device."""

import hashlib

import torch
from torch import Tensor


def on_host(generator: torch.Generator) -> torch.Generator:
    """Return a generator on the CPU that depends on the given one alone, and move that one on.

    A generator of the CPU is returned itself. To draw a number on a GPU and read it waits for all
    work that is queued there. The state of a GPU's generator lies on the host: so it seeds another
    generator, which is resumed where the GPU's is.
    """
    if generator.device.type == "cpu":
        return generator
    torch.rand(1, generator=generator, device=generator.device)  # the next state is another one
    return torch.Generator().manual_seed(seed_from_state(generator.get_state()))


def seed_from_state(state: Tensor) -> int:
    """Return a seed below 2^63 that depends on every byte of a generator's state."""
    return int.from_bytes(hashlib.sha256(state.numpy().tobytes()).digest()[:8]) >> 1
