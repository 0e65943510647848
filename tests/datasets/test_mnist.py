import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.datasets.making import CPU, real_data
from trainables.datasets import load_dataset
from trainables.datasets.mnist import FILES
from trainables.errors import InputError

TRAIN, TEST = 100, 20


def _write(root: Path, *, side: int = 28, largest: int = 9) -> Path:
    """Write a tiny MNIST in its real format, IDX; give the folder of the files."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        labels = bytes(min(row % 10, largest) if row else largest for row in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)
        header = struct.pack(">IIII", 2051, count, side, side)
        pixels = bytes(row % 251 for row in range(count * side * side))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
    return raw


def _error(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset("mnist", data_dir=root, image_size=None, device=CPU)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_idx_files_load_with_the_training_rows_first(tmp_path: Path) -> None:
    _write(tmp_path)
    mnist = load_dataset("mnist", data_dir=tmp_path, image_size=28, device=CPU)
    assert mnist.num_train == TRAIN
    assert mnist.shape == (1, 28, 28)
    assert mnist.images.labels[1:4].tolist() == [1, 2, 3]
    assert mnist.images.pixels[0].flatten()[:3].tolist() == [0, 1, 2]
    assert len(mnist.images) == TRAIN + TEST


def test_a_missing_folder_tells_the_layout(tmp_path: Path) -> None:
    assert "DIR/MNIST/raw/train-images-idx3-ubyte" in _error(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (_write(tmp_path) / name).unlink()
    assert name in _error(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:2],
        lambda data: data[:6],
        lambda data: data[:-5],
        lambda data: data + b"more",
        lambda data: b"<html>not found</html>",
    ],
    ids=["empty", "no header", "half a header", "truncated", "too long", "a web page"],
)
def test_a_broken_file_is_refused(
    name: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    file = _write(tmp_path) / name
    file.write_bytes(damage(file.read_bytes()))
    assert "again" in _error(tmp_path)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, side=27)
    assert "28x28" in _error(tmp_path)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, largest=11)
    assert "[0, 11], outside [0, 9]" in _error(tmp_path)


def test_a_class_without_enough_images_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, largest=8)
    assert "class '9' has 0" in _error(tmp_path)


def test_real_mnist_is_what_the_field_knows() -> None:
    root = real_data("MNIST/raw")
    mnist = load_dataset("mnist", data_dir=root, image_size=None, device=CPU)
    assert mnist.images.pixels.shape == (70_000, 1, 28, 28)
    assert mnist.num_train == 60_000
    assert int(mnist.images.labels[0]) == 5
    assert torch.bincount(mnist.images.labels[60_000:]).tolist()[:3] == [980, 1135, 1032]
    first = mnist.images.images(slice(0, 100))
    assert first.min() == 0 and first.max() == 1
    assert mnist.mean == pytest.approx([0.1307], abs=1e-4)
    assert mnist.std == pytest.approx([0.3081], abs=1e-4)
