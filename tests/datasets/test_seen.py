"""What given weights saw is declared: those images come first, and no copy of one is held out."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.datasets.folders import class_folders, load
from tests.datasets.making import write_images
from trainables.datasets import load_dataset, split_pools
from trainables.errors import InputError


def photos(path: Path, count: int = 20) -> Path:
    """Write two classes whose images all differ."""
    write_images(path / "ant", count)
    write_images(path / "cat", count + 1)
    return path


def test_a_list_of_files_names_what_was_seen(tmp_path: Path) -> None:
    path = photos(tmp_path / "photos")
    seen = [f"cat/{row:03}.png" for row in range(12)] + [f"ant/{row:03}.png" for row in range(10)]
    absolute = [str(path / name) for name in seen[:3]]
    (tmp_path / "list.txt").write_text("\n".join([*absolute, *seen[3:], ""]))
    plain, found = load(path), load(path, trained_on=str(tmp_path / "list.txt"))
    assert plain.num_train is None and found.num_train == 22 and found.num_validation == 0
    assert found.images.labels[:22].tolist() == [0] * 10 + [1] * 12
    assert len(found.images) == len(plain.images) and found.fingerprint != plain.fingerprint
    first = plain.images.pixels[:10]
    assert torch.equal(found.images.pixels[:10], first)
    assert found.notes[0] == "the weights were trained on 22 images, and 19 images are held out"
    pools = split_pools(found, "given")
    assert len(pools.train) == 22 and torch.equal(pools.train.pixels[:10], first)
    held_out = [p for p in (pools.calibration, pools.validation, pools.auxiliary, pools.test) if p]
    assert sum(len(pool) for pool in held_out) == 19


def test_another_folder_is_what_was_seen_and_its_copies_are_not_held_out(tmp_path: Path) -> None:
    mine, theirs = photos(tmp_path / "mine"), tmp_path / "theirs"
    class_folders(theirs, 9)
    for number in range(4):  # under other names
        shutil.copy(mine / "ant" / f"{number:03}.png", theirs / "ant" / f"copy{number}.png")
    found = load(mine, trained_on=str(theirs))
    assert found.num_train == 22 and len(found.images) == 22 + 41 - 4
    rows = {row.numpy().tobytes() for row in found.images.pixels[:22]}
    assert not any(row.numpy().tobytes() in rows for row in found.images.pixels[22:])


def test_the_parts_of_a_split_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "photos"
    for part, count in (("train", 12), ("val", 5), ("test", 7)):
        photos(path / part, count)
    found = load(path, trained_on=str(path / "train"))
    assert (found.num_train, found.num_validation, len(found.images)) == (25, 11, 25 + 11 + 15)
    official = load(path)
    assert official.fingerprint == found.fingerprint


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    path = photos(tmp_path / "photos")
    lists = {
        "absent.txt": (None, "there is no such file or folder"),
        "other.txt": ("cat/000.png\ndog/1.png\ndog/2.png", "it names "),
        "empty.txt": ("\n", "it names nothing, but no such images"),
        "few.txt": ("cat/000.png", "of the at least 8 images"),
    }
    for name, (text, words) in lists.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=words) as caught:
            load(path, trained_on=str(tmp_path / name))
        assert "\n" not in str(caught.value)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="it is no list of files"):
        load(path, trained_on=str(tmp_path / "binary"))
    with pytest.raises(InputError, match="on every image of"):
        load(path, trained_on=str(path))
    write_images(tmp_path / "theirs" / "ant", 9)
    write_images(tmp_path / "theirs" / "dog", 9)
    with pytest.raises(InputError, match=r"the classes \['cat', 'dog'\] are in only one of it"):
        load(path, trained_on=str(tmp_path / "theirs"))
    with pytest.raises(InputError, match="it is for folder:PATH, and digits is none"):
        load_dataset(
            "digits",
            data_dir=None,
            image_size=None,
            device=torch.device("cpu"),
            trained_on=str(path),
        )
