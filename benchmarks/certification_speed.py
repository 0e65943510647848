"""How fast images are certified, against the loop of Cohen et al. written plainly, in one run.

python -m benchmarks.certification_speed [--data-dir DIR] [--model pixeldp_cnn] [--images 8]

The plain loop is that of locuslab/smoothing: one image at a time, batches of 1,000 noisy copies,
votes counted one by one. Both certify the same images of the same network with as many draws asked
for, in turn, `--repeats` times over, and the median time counts. Draws asked for per second: one
that is spared counts as taken, since it answers the same question.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.datasets import Dataset, load_dataset
from trainables.datasets.registry import find_data_dir
from trainables.defenses.certified.randomized_smoothing import (
    RandomizedSmoothing,
    SmoothedPredictor,
)
from trainables.deployed.predictor import REFUSED, Predictor
from trainables.models import build_model

PLAIN_BATCH = 1000
FLOORS = {"certified": 1.0, "abstained": 1.5}
"""Ratios that are to be reached."""
Certify = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> the certified class (B,), or REFUSED."""


@dataclass(frozen=True, slots=True)
class Group:
    """Images that are certified under one noise."""

    name: str
    x: Tensor
    settings: RandomizedSmoothing


def train(dataset: Dataset, model: nn.Module, sigma: float, count: int) -> nn.Module:
    """Train on the first rows under noise, for about 50,000 images."""
    generator = torch.Generator().manual_seed(0)
    rows = min(count, len(dataset.images) * 2 // 3) // 100 * 100
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(max(2, 50_000 // rows)):
        for batch in torch.randperm(rows, generator=generator).view(-1, 100):
            x, y = dataset.images.images(batch), dataset.images.labels[batch]
            noise = torch.randn(x.shape, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x + sigma * noise), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval().requires_grad_(False)


def plain(model: nn.Module, settings: RandomizedSmoothing) -> Certify:
    """Certify as locuslab/smoothing does, one image at a time."""

    def votes(x: Tensor, draws: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        counts = np.zeros(10, dtype=np.int64)
        for start in range(0, draws, PLAIN_BATCH):
            batch = x.repeat((min(PLAIN_BATCH, draws - start), 1, 1, 1))
            noise = torch.randn_like(batch) * settings.sigma
            for label in model(batch + noise).argmax(1).numpy():
                counts[label] += 1
        return counts

    def one(x: Tensor) -> int:
        chosen = int(votes(x, settings.n0).argmax())
        won = int(votes(x, settings.n)[chosen])
        bound = stats.beta.ppf(settings.alpha, won, settings.n - won + 1) if won else 0.0
        return REFUSED if bound < 0.5 else chosen

    def certify(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.tensor([one(image) for image in x])

    return certify


def ours(model: nn.Module, settings: RandomizedSmoothing) -> Certify:
    """Certify by this project's predictor."""
    predictor, generator = SmoothedPredictor(Predictor(model), settings), torch.Generator()
    generator.manual_seed(0)
    return lambda x: predictor.certificates(x, generator).label


def groups(
    dataset: Dataset, model: nn.Module, settings: RandomizedSmoothing, images: int
) -> list[Group]:
    """Find held-out images that are certified, and some that are not, under four times the noise.

    Where so much noise leaves too few without a certificate, blends of two images join them.
    """
    generator = torch.Generator().manual_seed(1)
    rest = torch.arange(len(dataset.images) - 40 * images, len(dataset.images))
    x = dataset.images.images(rest[torch.randperm(len(rest), generator=generator)])
    found = []
    for name, sigma, candidates in (
        ("certified", settings.sigma, x),
        ("abstained", 4 * settings.sigma, torch.cat([x, (x + x.roll(1, 0)) / 2])),
    ):
        asked = replace(settings, sigma=sigma)
        certify, kept = ours(model, asked), list[Tensor]()
        for part in torch.split(candidates, images):
            kept += list(part[(certify(part) == REFUSED) == (name == "abstained")])
            if len(kept) >= images:
                break
        found.append(Group(name, torch.stack(kept[:images]), asked))
    return found


def compare(model: nn.Module, group: Group, repeats: int) -> None:
    """Certify in turn by both and print a line for each."""
    runs = {"ours": ours(model, group.settings), "plain loop": plain(model, group.settings)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    certified: dict[str, float] = {}
    for _ in range(repeats):
        for name, certify in runs.items():
            started = time.perf_counter()
            labels = certify(group.x)
            seconds[name].append(time.perf_counter() - started)
            certified[name] = float((labels != REFUSED).double().mean())
    asked = len(group.x) * (group.settings.n0 + group.settings.n)
    print(
        f"\n{group.name}: {len(group.x)} images, sigma {group.settings.sigma:g}, "
        f"{asked:,} draws asked for, median of {repeats}"
    )
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    for name, median in medians.items():
        print(
            f"  {name:12} {median:8.3f} s   {asked / median:10,.0f} draws/s"
            f"   certified {100 * certified[name]:5.1f} %"
        )
    ratio, floor = medians["plain loop"] / medians["ours"], FLOORS[group.name]
    verdict = "reached" if ratio >= floor else "MISSED"
    print(f"  {ratio:.2f} x as fast as the plain loop; wanted {floor}: {verdict}", flush=True)


def _dataset(data_dir: Path | None) -> Dataset:
    device, found = torch.device("cpu"), find_data_dir(data_dir)
    name = "mnist" if found is not None and Path(found, "MNIST").is_dir() else "digits"
    if name == "digits":
        print("no MNIST (--data-dir, $DEFENSE_SWEEP_DATA): measured on the embedded digits")
    return load_dataset(name, data_dir=found, image_size=None, device=device)


def main() -> None:
    """Train a network under noise and compare both on images of either sort."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=None, help="where MNIST lies")
    parser.add_argument("--model", default="pixeldp_cnn", help="a model's name")
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    dataset = _dataset(given.data_dir)
    model = build_model(given.model, dataset=dataset)
    train(dataset, model, given.sigma, given.train_images)
    settings = RandomizedSmoothing(sigma=given.sigma, n=given.n)
    print(f"{given.model} on {dataset.name}, {given.threads} thread(s)")
    for group in groups(dataset, model, settings, given.images):
        compare(model, group, given.repeats)


if __name__ == "__main__":
    main()
