"""What the parts share: device, data, and the networks that were trained on the way."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.on_gpu.compiling import Gain, Pace
from benchmarks.on_gpu.settings import Settings
from trainables.datasets import (
    Dataset,
    LabelledImages,
    Pools,
    load_dataset,
    split_pools,
    stratified_subset,
)
from trainables.datasets.dataset import make_dataset
from trainables.errors import InputError

_NOISE = 60.0
"""Standard deviation of the synthetic images' noise, in grey levels."""


@dataclass(slots=True, eq=False)
class Bench:
    """A run of the benchmark under way."""

    settings: Settings
    device: torch.device
    dataset: Dataset
    pools: Pools
    synthetic: str | None
    """Why the images are synthetic; None where they are real."""
    undefended: nn.Module | None = None
    adversarial: nn.Module | None = None
    pace: Pace | None = None
    """From the undefended network's eager training."""
    gain: Gain | None = None
    """From compiling that training; None where it was not measured."""
    autoattack_point_s: float | None = None
    """Seconds a point that AutoAttack took on the adversarially trained network."""

    def checkpoint(self) -> tuple[str, nn.Module]:
        """Return the network that attacks are compared on, with what it is called.

        Raises RuntimeError where no training has ended.
        """
        for name, model in (
            ("FGSM-trained", self.adversarial),
            ("undefended", self.undefended),
        ):
            if model is not None:
                return name, model.eval().requires_grad_(False)
        raise RuntimeError("there is no trained network: neither A0 nor A1 came to an end")

    def points(self, count: int) -> tuple[Tensor, Tensor]:
        """Return images and labels of so many stratified test points, in random order."""
        test = self.pools.test
        rows = stratified_subset(test.labels, count, seed=0)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        chosen = test.select(rows[order])
        return chosen.images(), chosen.labels

    @property
    def autoattack_eps(self) -> float:
        """The radius at which AutoAttack runs."""
        return min(1.0, self.settings.autoattack_radius * self.dataset.radius)

    def generator(self, seed: int = 0) -> torch.Generator:
        """Return a fresh generator on the device."""
        return torch.Generator(self.device).manual_seed(seed)


def build_bench(settings: Settings, device: torch.device, data_dir: Path | None) -> Bench:
    """Load the data onto the device, or make images where CIFAR-10 cannot be read."""
    synthetic = None
    try:
        dataset = load_dataset(settings.dataset, data_dir=data_dir, image_size=None, device=device)
    except InputError as error:
        if settings.dataset != "cifar10":
            raise
        synthetic = f"the images are synthetic, since there is no CIFAR-10: {error}"
        dataset = synthetic_dataset(device)
    pools = split_pools(dataset, "published", train_images=settings.train_images)
    return Bench(settings, device, dataset, pools, synthetic)


def synthetic_dataset(
    device: torch.device, *, num_train: int = 50_000, num_test: int = 10_000
) -> Dataset:
    """Return images of CIFAR-10's shape: a pattern for each of ten classes, under noise."""
    generator, count = torch.Generator().manual_seed(0), num_train + num_test
    coarse = torch.rand(10, 3, 4, 4, generator=generator) * 255
    patterns = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    labels = torch.arange(count) % 10
    pixels = torch.empty(count, 3, 32, 32, dtype=torch.uint8)
    for start in range(0, count, 5000):
        rows = slice(start, start + 5000)
        noise = _NOISE * torch.randn(pixels[rows].shape, generator=generator)
        pixels[rows] = (patterns[labels[rows]] + noise).clamp(0, 255).to(torch.uint8)
    return make_dataset(
        name="synthetic",
        title="synthetic",
        place="synthetic",
        images=LabelledImages(pixels=pixels, labels=labels, scale=255),
        num_train=num_train,
        classes=tuple(str(label) for label in range(10)),
        radius=8 / 255,
        radius_l2=0.5,
        augmentation="crop_flip",
        device=device,
    )
