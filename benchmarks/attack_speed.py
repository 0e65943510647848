"""The speed of our attacks and those of other libraries, on the same checkpoint in one run.

python -m benchmarks.attack_speed [--data-dir DIR] [--attacks pgd,deepfool,carlini_wagner]

Needs foolbox and pyautoattack; torchattacks joins in where it is installed
(`pip install --no-deps torchattacks`: its pinned requests would downgrade other packages).
Each library attacks in turn, `--repeats` times over, and the median time counts. Success is judged
by ourselves, image by image. The ratio is to the fastest rival that succeeds no more often than we.
"""

import argparse
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from foolbox.attacks import LinfPGD
from foolbox.attacks.carlini_wagner import L2CarliniWagnerAttack
from foolbox.attacks.deepfool import L2DeepFoolAttack
from foolbox.models.pytorch import PyTorchModel
from pyautoattack import AutoAttack
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.attacks import attack
from trainables.datasets import Dataset, load_dataset
from trainables.datasets.registry import find_data_dir

PGD_STEPS, CW_SEARCH_STEPS = 40, 9
FLOORS = {"pgd undefended": 1.5, "pgd PGD-trained": 0.95, "deepfool": 2.0, "carlini_wagner": 2.0}
"""Ratios that are to be reached."""
Run = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Net:
    """A trained network and images that it classifies right."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one library's attack took and reached."""

    seconds: float
    success: float
    mean_l2: float


def build(dataset: Dataset) -> nn.Sequential:
    """Build the network of Wong et al., 2020, for MNIST: 166,406 parameters."""
    channels, height, width = dataset.shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 100),
        nn.ReLU(),
        nn.Linear(100, dataset.num_classes),
    )


def train(dataset: Dataset, *, adversarial: bool, count: int, images: int) -> Net:
    """Train on the first rows, the last epochs on PGD's images if asked; attack held-out rows."""
    torch.manual_seed(0)
    generator, model = torch.Generator().manual_seed(0), build(dataset)
    held_out = min(images, len(dataset.images) // 3)
    rows = min(count, (dataset.num_train or len(dataset.images)) - held_out) // 100 * 100
    epochs = max(5, 50_000 // rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        radius = dataset.radius * min(1.0, 2 * epoch / epochs)
        for batch in torch.randperm(rows, generator=generator).view(-1, 100):
            x, y = dataset.images.images(batch), dataset.images.labels[batch]
            if adversarial and epoch > 0:
                x = attack("pgd")(
                    model, x, y, eps=radius, steps=7, early_stop=False, generator=generator
                )
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model = model.eval().requires_grad_(False)
    rest = torch.arange(rows, len(dataset.images))
    x, y = dataset.images.images(rest), dataset.images.labels[rest]
    right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:held_out]
    return Net(model, x[right], y[right], dataset.radius)


def _foolbox(net: Net, attack: Any, **keywords: Any) -> Run:
    wrapped = PyTorchModel(net.model, bounds=(0, 1), device="cpu")
    keywords = {"epsilons": None, **keywords}
    return lambda: torch.as_tensor(attack(wrapped, net.x, net.y, **keywords)[1])


def _torchattacks(name: str, net: Net, **keywords: Any) -> dict[str, Run]:
    if importlib.util.find_spec("torchattacks") is None:
        return {}
    attack = getattr(importlib.import_module("torchattacks"), name)(net.model, **keywords)
    return {"torchattacks": lambda: torch.as_tensor(attack(net.x, net.y))}


def _apgd(net: Net) -> Run:
    def run() -> Tensor:
        audit = AutoAttack(
            net.model, attacks=["apgd-ce"], device="cpu", eps=net.eps, seed=0, version="custom"
        )
        audit.apgd.n_restarts, audit.apgd.n_iter = 1, PGD_STEPS
        attacked, _ = audit.run_standard_evaluation(net.x, net.y, batch_size=len(net.x))
        return torch.as_tensor(attacked)

    return run


def pgd_runs(net: Net) -> dict[str, Run]:
    """Return pgd in the Linf ball, 40 steps of eps / 30 from the clean image."""
    size, ours = net.eps / 30, attack("pgd")
    settings = {"eps": net.eps, "steps": PGD_STEPS, "step_size": size, "random_start": False}
    theirs = LinfPGD(abs_stepsize=size, steps=PGD_STEPS, random_start=False)
    same = {"eps": net.eps, "alpha": size, "steps": PGD_STEPS, "random_start": False}
    return {
        "ours": lambda: ours(net.model, net.x, net.y, **settings),
        "foolbox": _foolbox(net, theirs, epsilons=net.eps),
        **_torchattacks("PGD", net, **same),
        "pyautoattack apgd-ce": _apgd(net),
    }


def deepfool_runs(net: Net) -> dict[str, Run]:
    """Return deepfool with 50 steps, ten candidates and an overshoot of 0.02."""
    theirs = L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits")
    return {
        "ours": lambda: attack("deepfool")(net.model, net.x, net.y),
        "foolbox": _foolbox(net, theirs),
        **_torchattacks("DeepFool", net, steps=50, overshoot=0.02),
    }


def carlini_wagner_runs(net: Net, steps: int) -> dict[str, Run]:
    """Return carlini_wagner with a search over nine constants (torchattacks' has none: left
    out).
    """
    theirs = L2CarliniWagnerAttack(binary_search_steps=CW_SEARCH_STEPS, steps=steps, stepsize=0.01)
    settings = {"steps": steps, "search_steps": CW_SEARCH_STEPS}
    return {
        "ours": lambda: attack("carlini_wagner")(net.model, net.x, net.y, **settings),
        "foolbox": _foolbox(net, theirs),
    }


def compare(title: str, net: Net, runs: Mapping[str, Run], repeats: int) -> None:
    """Run the libraries in turn and print a line for each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    attacked: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            attacked[name] = run()
            seconds[name].append(time.perf_counter() - started)
    found = {
        name: _judged(net, attacked[name], statistics.median(spent))
        for name, spent in seconds.items()
    }
    print(f"\n{title}: {len(net.x)} images, median of {repeats}", flush=True)
    for name, one in found.items():
        print(
            f"  {name:22} {one.seconds:8.3f} s   success {100 * one.success:5.1f} %"
            f"   mean L2 {one.mean_l2:.4f}"
        )
    ours = found.pop("ours")
    beaten = {name: one for name, one in found.items() if one.success <= ours.success}
    if not beaten:
        print("  every rival succeeds more often: no ratio")
        return
    fastest = min(beaten, key=lambda name: beaten[name].seconds)
    ratio, floor = beaten[fastest].seconds / ours.seconds, FLOORS[title]
    verdict = "reached" if ratio >= floor else "MISSED"
    print(f"  {ratio:.2f} x as fast as {fastest}; wanted {floor}: {verdict}")


def _judged(net: Net, attacked: Tensor, seconds: float) -> Outcome:
    wrong = torch.cat([net.model(image[None]).argmax(1) for image in attacked]) != net.y
    lengths = (attacked - net.x).flatten(1).norm(dim=1)
    return Outcome(seconds, float(wrong.double().mean()), float(lengths[wrong].double().mean()))


def _dataset(data_dir: Path | None) -> Dataset:
    device, found = torch.device("cpu"), find_data_dir(data_dir)
    name = "mnist" if found is not None and Path(found, "MNIST").is_dir() else "digits"
    if name == "digits":
        print("no MNIST (--data-dir, $DEFENSE_SWEEP_DATA): measured on the embedded digits")
    return load_dataset(name, data_dir=found, image_size=None, device=device)


def main() -> None:
    """Train both networks and compare the attacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=None, help="where MNIST lies")
    parser.add_argument("--attacks", default="pgd,deepfool,carlini_wagner")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--cw-images", type=int, default=100)
    parser.add_argument("--cw-steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5, help="of pgd and deepfool")
    parser.add_argument("--cw-repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    wanted, dataset = given.attacks.split(","), _dataset(given.data_dir)
    sizes = {"count": given.train_images, "images": given.images}
    plain = train(dataset, adversarial=False, **sizes)
    if "pgd" in wanted:
        compare("pgd undefended", plain, pgd_runs(plain), given.repeats)
        robust = train(dataset, adversarial=True, **sizes)
        compare("pgd PGD-trained", robust, pgd_runs(robust), given.repeats)
    if "deepfool" in wanted:
        compare("deepfool", plain, deepfool_runs(plain), given.repeats)
    if "carlini_wagner" in wanted:
        few = Net(plain.model, plain.x[: given.cw_images], plain.y[: given.cw_images], plain.eps)
        runs = carlini_wagner_runs(few, given.cw_steps)
        compare("carlini_wagner", few, runs, given.cw_repeats)


if __name__ == "__main__":
    main()
