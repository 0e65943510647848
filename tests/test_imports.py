"""The fingerprint of a user's code covers all of it, and nothing else."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.errors import InputError
from trainables.imports import code_fingerprint

FILES = {
    "users_flat.py": "import users_helper\nfrom users_pack import part\nimport torch\n",
    "users_helper.py": "def lazily():\n    import users_late\n",
    "users_late.py": "NUMBER = 1\n",
    "users_other.py": "NUMBER = 1\n",
    "users_pack/__init__.py": '"""A package."""\n',
    "users_pack/part.py": "from . import sibling\nfrom .deep.inner import *\n",
    "users_pack/sibling.py": "from users_pack.deep import more as renamed\n",
    "users_pack/unused.py": "NUMBER = 1\n",
    "users_pack/deep/__init__.py": "from ..above import NUMBER\n",
    "users_pack/deep/inner.py": "NUMBER = 1\n",
    "users_pack/deep/more.py": "import users_flat\n",
    "users_pack/above.py": "NUMBER = 1\n",
    "users_alone.py": "import torch\nfrom trainables.defenses import Defense\n",
}
USED = {*FILES} - {"users_other.py", "users_pack/unused.py", "users_alone.py"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder of a user's modules, importable during the test."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("users_")]:
        del sys.modules[name]


@pytest.mark.parametrize("path", ["users_flat:net", "users_pack.part:net"])
@pytest.mark.parametrize("changed", FILES)
def test_every_imported_file_counts_and_no_other(path: str, changed: str, root: Path) -> None:
    before = code_fingerprint(path, "model")
    (root / changed).write_text(FILES[changed] + "CHANGED = True\n")
    assert (code_fingerprint(path, "model") != before) == (changed in USED)


def test_a_package_that_begins_to_hold_code_counts(root: Path) -> None:
    before = code_fingerprint("users_pack.sibling:net", "defense")
    (root / "users_pack/__init__.py").write_text("import users_other\n")
    after = code_fingerprint("users_pack.sibling:net", "defense")
    (root / "users_other.py").write_text("NUMBER = 2\n")
    assert len({before, after, code_fingerprint("users_pack.sibling:net", "defense")}) == 3


def test_a_lone_file_is_its_own_fingerprint(root: Path) -> None:
    expected = hashlib.sha256((root / "users_alone.py").read_bytes()).hexdigest()
    assert code_fingerprint("users_alone:net", "model") == expected


def test_of_an_installed_package_its_own_files_count_alone(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    (installed / "users_installed").mkdir(parents=True)
    (installed / "users_installed/__init__.py").write_text("")
    (installed / "users_installed/net.py").write_text("import users_next\nfrom . import own\n")
    (installed / "users_installed/own.py").write_text("")
    (installed / "users_next.py").write_text("")
    monkeypatch.syspath_prepend(installed)
    before = code_fingerprint("users_installed.net:build", "model")
    (installed / "users_next.py").write_text("CHANGED = True\n")
    assert code_fingerprint("users_installed.net:build", "model") == before
    (installed / "users_installed/own.py").write_text("CHANGED = True\n")
    assert code_fingerprint("users_installed.net:build", "model") != before


def test_a_file_that_is_no_python_has_a_fingerprint_too(root: Path) -> None:
    (root / "users_broken.py").write_text("this is no python")
    assert code_fingerprint("users_broken:net", "model")


def test_a_module_without_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="no file holds a module 'sys'"):
        code_fingerprint("sys:net", "model")
