"""A bundle that was changed, cut off, or made to harm is refused in one line."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from results.bundle import BundleError, load
from results.bundle.contents import restore
from results.bundle.members import INDEX, PROGRAM, REFERENCE, REQUIRED, SEAL, WEIGHTS
from results.bundle.reference import TOLERANCE, differences
from tests.making import EPS
from tests.results.bundles import change_index, change_tensors, make_bundle
from trainables.defenses import build_defense

MEMBERS = (*REQUIRED, PROGRAM, INDEX, SEAL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, artefact_folder: Path) -> Path:
    """Return a bundle that no test changes."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    tempered = build_defense("temperature", {"T": 1.5}, radius=EPS)
    return make_bundle(folder, artefact_folder, tempered, program=True).folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundle that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, artefact_folder: Path) -> Path:
    """Return a bundle with a fitted threshold."""
    folder = tmp_path_factory.mktemp("detector") / "bundle"
    return make_bundle(
        folder, artefact_folder, build_defense("energy_detector", {}, radius=EPS)
    ).folder


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_one_byte_flipped_in_any_member_is_refused(bundle: Path, name: str, place: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{INDEX if name == SEAL else name}.*is not what was"):
        load(bundle)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_cut_off_or_missing_is_refused(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1])
    with pytest.raises(BundleError, match="is not what was exported"):
        load(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load(bundle)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_is_a_link_is_refused(bundle: Path, name: str, tmp_path: Path) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=f"{name} is a link"):
        load(bundle)


def test_a_pipe_in_the_place_of_a_member_does_not_hang(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    os.mkfifo(bundle / WEIGHTS)
    with pytest.raises(BundleError, match="is not a plain file"):
        load(bundle)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "sub/weights", "card.json\0", "x.pkl"]
)
def test_a_member_of_another_name_is_refused_unread(bundle: Path, name: str) -> None:
    change_index(bundle, lambda index: index["files"].update({name: {"sha256": "", "bytes": 0}}))
    with pytest.raises(BundleError, match="is not a member of a bundle"):
        load(bundle)


def test_what_else_lies_in_the_folder_is_not_read(bundle: Path) -> None:
    (bundle / "__init__.py").write_text("raise SystemExit")
    load(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.pop("spec"),
        lambda index: index.pop("fitted"),
        lambda index: index["spec"].update(stack=[{"name": "nope"}]),
        lambda index: index["spec"].update(stack=3),
        lambda index: index["spec"]["model"].update(name="lenet5"),
        lambda index: index["spec"]["model"].update(name="resnet18"),
        lambda index: index["dataset"].update(shape=[1, 8]),
        lambda index: index["dataset"].update(shape="wide"),
        lambda index: index["dataset"].pop("mean"),
        lambda index: index.update(fitted={"temperature": {"T": 1}}),
        lambda index: index.update(fitted=[]),
        lambda index: index.update(prediction_seed=1),
        lambda index: index.update(format=99),
        lambda index: index.update(kind="cake"),
        lambda index: index.update(files=[]),
        lambda index: index["files"].pop(WEIGHTS),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(
    bundle: Path, change: Callable[[Any], object]
) -> None:
    change_index(bundle, change)
    with pytest.raises(BundleError) as refused:
        load(bundle)
    assert str(bundle) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b"{}", b"[]", b'{"a": NaN}', b"\xff"])
def test_an_index_that_is_no_json_object_is_refused(bundle: Path, text: bytes) -> None:
    import hashlib

    (bundle / INDEX).write_bytes(text)
    (bundle / SEAL).write_text(f"{hashlib.sha256(text).hexdigest()}  {INDEX}\n")
    with pytest.raises(BundleError, match=INDEX):
        load(bundle)


@pytest.mark.parametrize("where", ["model", "stack"])
def test_code_that_a_bundle_names_is_not_imported_unasked(bundle: Path, where: str) -> None:
    def name(index: Any) -> None:
        if where == "model":
            index["spec"]["model"]["name"] = "antigravity:fly"
        else:
            index["spec"]["stack"] = [{"name": "antigravity:fly"}]

    change_index(bundle, name)
    with pytest.raises(BundleError, match=r"antigravity:fly.*if you trust it"):
        load(bundle)
    with pytest.raises(BundleError, match="not the code that was exported"):
        load(bundle, own_code=True)


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_what_is_no_folder_is_no_bundle(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="no bundle at"):
        load(tmp_path / path)


def test_a_temperature_swapped_and_rehashed_answers_otherwise(bundle: Path) -> None:
    def swap(index: Any) -> None:
        index["spec"]["stack"][0]["T"] = 3.0

    change_index(bundle, swap)
    loaded = load(bundle)
    assert differences(loaded.predictor, loaded.reference)["probabilities"] > 100 * TOLERANCE


def test_a_threshold_swapped_and_rehashed_answers_otherwise(detector: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(detector, tmp_path / "bundle"))
    change_index(bundle, lambda index: index["fitted"]["threshold"].update(threshold=1e9))
    loaded = load(bundle)
    found = differences(loaded.predictor, loaded.reference)
    assert found["probabilities"] == 0 and found["answers"] >= 1


def test_weights_that_are_not_finite_agree_with_nothing(bundle: Path) -> None:
    change_tensors(bundle, WEIGHTS, lambda t: t["model.head.weight"].fill_(float("nan")))
    loaded = load(bundle)
    assert differences(loaded.predictor, loaded.reference)["probabilities"] == float("inf")


def test_a_reference_of_another_form_is_refused(bundle: Path) -> None:
    change_tensors(bundle, REFERENCE, lambda tensors: tensors.pop("labels"))
    with pytest.raises(BundleError, match="reference inputs"):
        load(bundle)


def test_weights_of_another_network_are_refused(bundle: Path) -> None:
    change_tensors(bundle, WEIGHTS, lambda tensors: tensors.pop("model.head.bias"))
    with pytest.raises(BundleError, match="do not fit together"):
        load(bundle)


def test_an_index_without_its_lists_is_refused() -> None:
    with pytest.raises(BundleError, match="lacks 'spec'"):
        restore({"prediction_seed": 0}, {}, own_code=False, device=torch.device("cpu"))
