"""What keeping and reading a checkpoint of a CIFAR ResNet-18 takes.

Run from the checkout: python -m benchmarks.checkpoint_cost [FOLDER]
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from trainables.device import given_device
from trainables.models.contract import ModelArguments
from trainables.models.resnet18 import resnet18
from trainables.storage.artefacts import ArtefactStore
from trainables.training.checkpoints import EVERY_SECONDS, Moving, packed, unpacked

REPEATS = 5
CIFAR10 = ModelArguments(
    channels=3, height=32, width=32, num_classes=10, mean=(0.5,) * 3, std=(0.25,) * 3,
    norm="batch", activation="relu",
)  # fmt: skip


def main() -> None:
    """Print the file's size and the median seconds."""
    device = given_device(None)
    model = resnet18(CIFAR10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    moving = Moving(
        model=model, optimizer=optimizer, schedule=schedule, generator=torch.Generator(device)
    )
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        store = ArtefactStore(Path(folder))
        keeping, reading = [], []
        for _ in range(REPEATS):
            started = time.perf_counter()
            store.keep_progress("key", packed(moving.state()))
            keeping.append(time.perf_counter() - started)
            started = time.perf_counter()
            found = store.progress("key")
            assert found is not None
            moving.restore(unpacked(found))
            reading.append(time.perf_counter() - started)
        size = sum(path.stat().st_size for path in Path(folder).glob("progress-*"))
    keep, read = sorted(keeping)[REPEATS // 2], sorted(reading)[REPEATS // 2]
    print(f"{device}: {size / 1e6:.0f} MB, kept in {keep:.2f} s, read and restored in {read:.2f} s")
    print(f"at one every {EVERY_SECONDS:g} s: {100 * keep / EVERY_SECONDS:.2f} % of the time")


if __name__ == "__main__":
    main()
