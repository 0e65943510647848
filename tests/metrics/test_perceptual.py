from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from trainables.errors import InputError
from trainables.metrics.perceptual import (
    WEIGHTS_NAME,
    distances,
    find_weights,
    load_lpips,
    lpips_distance,
)
from trainables.records.value import Measured, Missing


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write random AlexNet weights as torchvision would write real ones."""
    path = tmp_path_factory.mktemp("weights") / WEIGHTS_NAME
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(models.alexnet(weights=None).state_dict(), path)
    return path


@pytest.fixture
def no_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let torchvision's downloads lie in an empty folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def _images(channels: int = 3, side: int = 64, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.rand(count, channels, side, side, generator=generator)


def test_without_weights_the_distance_is_missing_with_the_reason(no_downloads: Path) -> None:
    found = lpips_distance(_images(), _images(), None)
    assert isinstance(found, Missing)
    assert WEIGHTS_NAME in found.reason and "--lpips-weights" in found.reason


def test_weights_are_found_where_given_else_where_torchvision_keeps_them(
    no_downloads: Path,
) -> None:
    assert find_weights(None) is None
    assert find_weights(Path("given.pth")) == Path("given.pth")
    kept = no_downloads / "hub" / "checkpoints" / WEIGHTS_NAME
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert find_weights(None) == kept


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32), (3, 49), (3, 100)])
def test_equal_images_are_at_zero_and_others_farther_the_more_they_differ(
    channels: int, side: int, weights: Path
) -> None:
    clean, net = _images(channels, side), load_lpips(weights)
    noise = _images(channels, side + 1)[..., :side, :side] - 0.5
    assert torch.equal(distances(net, clean, clean), torch.zeros(3))
    near = distances(net, clean, (clean + 0.1 * noise).clamp(0, 1))
    far = distances(net, clean, (clean + noise).clamp(0, 1))
    assert near.shape == (3,) and bool((near > 0).all()) and bool((near < far).all())


def test_the_weights_of_the_file_are_the_ones_used(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    net = load_lpips(weights)
    own = dict(net.net.named_parameters())  # type: ignore[union-attr]
    assert len(own) == 10
    for name, tensor in own.items():
        assert torch.equal(tensor, state[f"features.{name.partition('.')[2]}"])
    assert not net.training and not any(tensor.requires_grad for tensor in own.values())


def test_batches_do_not_change_the_distances(weights: Path) -> None:
    clean, changed = _images(1, 8, count=7), _images(1, 9, count=7)[..., :8, :8]
    net = load_lpips(weights)
    torch.testing.assert_close(
        distances(net, clean, changed, batch=2), distances(net, clean, changed)
    )


def test_the_mean_has_an_interval(weights: Path) -> None:
    clean, changed = _images(1, 8), _images(1, 9)[..., :8, :8]
    found = lpips_distance(clean, changed, weights)
    assert isinstance(found, Measured) and found.n == 3 and found.low < found.value < found.high


WRONG = {
    "text": b"no weights",
    "empty": b"",
    "zip": b"PK\x03\x04 and nothing more",
    "list": [1, 2],
    "numbers": {1: 2},
    "words": {"features.0.weight": "no"},
    "one layer": {"features.0.weight": torch.zeros(1)},
    "another net": nn.Linear(2, 2).state_dict(),
    "a whole model": nn.Linear(2, 2),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_of_something_else_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / "wrong.pth", WRONG[kind]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="no AlexNet weights") as caught:
        load_lpips(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(InputError, match="--lpips-weights"):
            load_lpips(path)
