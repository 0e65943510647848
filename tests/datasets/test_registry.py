import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.datasets.making import CPU, fake_dataset, write_images
from trainables.datasets import DATASETS, dataset_entry, load_dataset
from trainables.datasets.dataset import make_dataset
from trainables.errors import InputError


def _error(name: str, data_dir: Path | None = None, image_size: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, data_dir=data_dir, image_size=image_size, device=CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_registry_has_the_names_of_the_contract() -> None:
    assert list(DATASETS) == ["digits", "mnist", "cifar10", "folder"]
    assert all(name == entry.name for name, entry in DATASETS.items())


def test_standard_radii_are_those_of_the_field() -> None:
    radii = {name: (entry.radius, entry.radius_l2) for name, entry in DATASETS.items()}
    assert radii == {
        "digits": (0.15, 0.8),
        "mnist": (0.3, 2.0),
        "cifar10": (8 / 255, 0.5),
        "folder": (8 / 255, 0.5),
    }


def test_a_folder_is_named_by_its_path() -> None:
    assert dataset_entry("folder:some/where") is DATASETS["folder"]


@pytest.mark.parametrize("name", ["imagenet", "mnist:there", ""])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="known: digits, mnist, cifar10, folder:PATH"):
        dataset_entry(name)


@pytest.mark.parametrize("name", ["folder", "folder:"])
def test_a_folder_without_a_path_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="folder:PATH"):
        dataset_entry(name)


def test_digits_are_1797_real_images_of_sixteen_grey_levels() -> None:
    digits = load_dataset("digits", data_dir=None, image_size=None, device=CPU)
    assert digits.shape == (1, 8, 8)
    assert digits.num_classes == 10
    assert len(digits.images) == 1797
    assert digits.num_train is None
    assert digits.images.labels[:10].tolist() == list(range(10))
    assert digits.images.images().min() == 0 and digits.images.images().max() == 1
    values = digits.images.images().double()
    assert digits.mean[0] == pytest.approx(values.mean().item(), abs=1e-6)
    assert digits.std[0] == pytest.approx(values.std(unbiased=False).item(), abs=1e-6)


def test_the_same_arguments_give_the_same_object() -> None:
    first = load_dataset("digits", data_dir=None, image_size=None, device=CPU)
    assert load_dataset("digits", data_dir=None, image_size=None, device=CPU) is first
    assert load_dataset("digits", data_dir=None, image_size=8, device=CPU) is not first


def test_the_data_folder_falls_back_on_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFENSE_SWEEP_DATA", str(tmp_path))
    assert str(tmp_path) in _error("mnist")
    monkeypatch.delenv("DEFENSE_SWEEP_DATA")
    message = _error("mnist")
    assert "--data-dir" in message and "$DEFENSE_SWEEP_DATA" in message
    assert "--data-dir" in _error("cifar10")


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_fixed_size_data_sets_refuse_another_size(name: str, tmp_path: Path) -> None:
    assert "--image-size is 16" in _error(name, tmp_path, 16)


@pytest.mark.parametrize("size", [3, 0, -8, 1025])
def test_an_image_size_out_of_range_is_refused(size: int, tmp_path: Path) -> None:
    assert f"got {size}" in _error(f"folder:{tmp_path}", image_size=size)


def test_the_fingerprint_changes_with_every_fact_it_covers() -> None:
    labels = torch.arange(60) % 2
    base = fake_dataset(labels, 40)
    changed = base.images.pixels.clone()
    changed[0, 0, 0, 0] += 1
    flipped = labels.clone()
    flipped[:2] = flipped[:2].flip(0)
    facts = {
        field.name: getattr(base, field.name)
        for field in dataclasses.fields(base)
        if field.name not in ("mean", "std", "fingerprint")
    }
    images = base.images
    variants: list[dict[str, Any]] = [
        {"images": images},
        {"images": dataclasses.replace(images, pixels=changed)},
        {"images": dataclasses.replace(images, labels=flipped)},
        {"images": dataclasses.replace(images, scale=254)},
        {"num_train": 41},
        {"classes": ("0", "one")},
    ]
    prints = [
        make_dataset(**{**facts, **variant}, place="fake", device=CPU).fingerprint
        for variant in variants
    ]
    assert prints[0] == base.fingerprint
    assert len(set(prints)) == len(variants)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    assert fake_dataset(torch.arange(20) % 2, None, channels=2).std[1] == 1 / 255


def test_the_cache_tells_folders_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for label in ("a", "b"):
            write_images(tmp_path / name / label, 10)
    names = [f"folder:{tmp_path / name}" for name in ("one", "two")]
    loaded = [load_dataset(name, data_dir=None, image_size=None, device=CPU) for name in names]
    assert [dataset.name for dataset in loaded] == names
    assert [dataset.title for dataset in loaded] == ["one", "two"]
