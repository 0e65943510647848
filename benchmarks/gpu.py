"""What a GPU does with this project, in eight minutes at most and without Ray.

python -m benchmarks.gpu [--data-dir DIR] [--out FILE] [--seconds 480] [--tiny]

Measured: the undefended baseline (A0) and FGSM adversarial training (A1) on CIFAR-10, PGD-20 and
AutoAttack alongside other libraries on one checkpoint, certificates, the meter of GPU memory, and
whether every attack does on the GPU what it does on the CPU. foolbox, torchattacks
(`pip install --no-deps torchattacks`: its pinned requests would downgrade other packages) and
pyautoattack join in where they are installed. What does not fit into the time says so in its row.
Everything except the training's passes runs in float32. The exit code is 1 where a part failed or a
figure is not what it must be.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.on_gpu.bench import Bench, build_bench
from benchmarks.on_gpu.equality import measure_equality
from benchmarks.on_gpu.machine import machine
from benchmarks.on_gpu.memory import measure_memory
from benchmarks.on_gpu.report import Clock, Row, line, missing, one_line
from benchmarks.on_gpu.settings import FULL, TINY, Settings
from benchmarks.on_gpu.speed import measure_attacks, measure_certificates
from benchmarks.on_gpu.training import measure_a0, measure_a1
from trainables.device import full_precision, given_device

Part = Callable[[Bench, Clock], Iterator[Row]]
PARTS: Mapping[str, Part] = {
    "A0": measure_a0,
    "A1": measure_a1,
    "attacks": measure_attacks,
    "certify": measure_certificates,
    "memory": measure_memory,
    "equality": measure_equality,
}
MOST_SECONDS = 480.0


def measure(bench: Bench, clock: Clock, seconds: float) -> Iterator[Row]:
    """Yield the rows of all parts, each within its share and what those before it left."""
    spare = 0.0
    for name, part in PARTS.items():
        share = clock.share(seconds * bench.settings.shares[name] + spare)
        if share.left() <= 0:
            yield missing(name, "the whole part", "", f"the {seconds:g} s are over")
            continue
        try:
            yield from part(bench, share)
        except Exception as error:  # a part that fails takes no other's figures with it
            failed = missing(name, "the rest of the part", "", f"it failed: {one_line(error)}")
            yield replace(failed, passed=False)
        spare = max(0.0, share.left())


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, print the table, write the JSON, and return the exit code."""
    given = _parser().parse_args(arguments)
    started = time.perf_counter()
    clock, device = Clock(given.seconds), given_device(None)
    settings: Settings = TINY if given.tiny else FULL
    if given.dataset:
        settings = replace(settings, dataset=given.dataset)
    about = machine(device)
    print("  ".join(f"{name} {about[name]}" for name in ("device", "driver", "torch", "commit")))
    rows: list[Row] = []
    with full_precision(device):
        bench = build_bench(settings, device, given.data_dir)
        if given.tiny:
            print(f"--tiny: {settings.model} on {bench.dataset.name}, which measures no GPU")
        for row in measure(bench, clock, given.seconds):
            rows.append(row)
            print(line(row), flush=True)
    took, failed = time.perf_counter() - started, [row for row in rows if row.passed is False]
    print(f"{len(rows)} rows in {took:.0f} s, {len(failed)} of them not as they must be")
    if given.out:
        plain = {
            "machine": about,
            "tiny": given.tiny,
            "dataset": bench.dataset.name,
            "synthetic": bench.synthetic,
            "seconds": round(took, 1),
            "rows": [row.plain() for row in rows],
        }
        given.out.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data-dir", type=Path, default=None, help="where CIFAR-10 lies")
    parser.add_argument("--dataset", default=None, help="another data set than CIFAR-10")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file to write")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="time for everything")
    parser.add_argument("--tiny", action="store_true", help="digits and a small net, in seconds")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
