"""Nothing that is read may run code: all of our source is looked through for what would."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.making import spec_of
from trainables.storage.artefacts import ArtefactStore
from trainables.trial.stages import run_trial

ROOT = Path(__file__).parent.parent
PACKAGES = ("orchestrator", "trainables", "search_spaces", "results", "benchmarks")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
HARMLESS = {"PickleError", "UnpicklingError", "PicklingError"}
"""Names of pickle's that load nothing: what a reader may raise."""
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"read_pickle", "unsafe_load", "full_load", "load_state_dict_from_url"}
FORBIDDEN_DOTTED = {"os.system", "os.popen", "torch.jit.load", "torch.hub.load", "torch.package"}
SAFE_LOADERS = {
    "yaml.SafeLoader",
    "yaml.CSafeLoader",
    "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)",
}


def unsafe(source: str) -> list[str]:
    """List the places of a source text that could run what they read, as `line: what`."""
    tree = ast.parse(source)
    safe_loaders = _safe_loaders(tree)
    return [
        f"{node.lineno}: {what}"
        for node in ast.walk(tree)
        for what in _unsafe_node(node, safe_loaders)
        if isinstance(node, ast.expr | ast.stmt)
    ]


def _safe_loaders(tree: ast.Module) -> set[str]:
    """Return what names a safe loader of YAML: every value of a name, every base of a class is."""
    meanings: dict[str, list[bool]] = {}
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.ClassDef)]
    for node in sorted(named, key=lambda node: node.lineno):
        safe = SAFE_LOADERS | {name for name, kinds in meanings.items() if all(kinds)}
        if isinstance(node, ast.Assign):
            for target in node.targets:
                meanings.setdefault(ast.unparse(target), []).append(ast.unparse(node.value) in safe)
        else:
            bases = {ast.unparse(base) for base in node.bases}
            meanings.setdefault(node.name, []).append(bool(bases) and bases <= safe)
    return SAFE_LOADERS | {name for name, kinds in meanings.items() if all(kinds)}


def _unsafe_node(node: ast.AST, safe_loaders: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        # pickle itself is imported for the names of its errors, and under its own name alone.
        for alias in node.names:
            if alias.name in PICKLERS and (alias.name != "pickle" or alias.asname):
                yield alias.name
    elif isinstance(node, ast.ImportFrom) and node.module in PICKLERS:
        yield from (alias.name for alias in node.names if alias.name not in HARMLESS)
    elif isinstance(node, ast.Attribute) and _dotted(node.value) in PICKLERS:
        yield from {node.attr} - HARMLESS
    elif isinstance(node, ast.Call):
        yield from _unsafe_call(node, safe_loaders)


def _unsafe_call(node: ast.Call, safe_loaders: set[str]) -> Iterator[str]:
    name = _dotted(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    positional = [ast.unparse(argument) for argument in node.args]
    if name in FORBIDDEN_CALLS | FORBIDDEN_DOTTED or name.split(".")[-1] in FORBIDDEN_METHODS:
        yield name
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if name == "yaml.load" and not {*positional[1:], *given.values()} & safe_loaders:
        yield "yaml.load without a safe loader"
    if given.get("shell", "False") != "False":
        yield f"{name} with shell"


def _dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(file: Path) -> None:
    assert unsafe(file.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle\npickle.load(file)",
        "import pickle\nread = pickle.loads",
        "import pickle as p",
        "from pickle import Unpickler",
        "import cloudpickle",
        "import joblib\njoblib.load(path)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import torch\ntorch.jit.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(path)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, yaml.UnsafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "import yaml\nclass Loose(yaml.UnsafeLoader): ...\nyaml.load(text, Loose)",
        "import yaml\nclass Loose(yaml.Loader, yaml.SafeLoader): ...\nyaml.load(text, Loose)",
        "import yaml\nL = yaml.SafeLoader\nif fast: L = yaml.CLoader\nyaml.load(text, L)",
        "eval(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_what_could_run_what_it_reads_is_found(planted: str) -> None:
    assert unsafe(planted)


@pytest.mark.parametrize(
    "innocent",
    [
        "import pickle\nerrors = (OSError, pickle.PickleError)",
        "from pickle import PickleError",
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)",
        "import yaml\nyaml.safe_load(text)",
        "import yaml\nclass Strict(yaml.SafeLoader): ...\nyaml.load(text, Strict)",
        "import yaml\nL = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)\nyaml.load(text, L)",
        "model.eval()",
    ],
)
def test_what_reads_only_data_is_left_alone(innocent: str) -> None:
    assert unsafe(innocent) == []


def test_a_record_holds_no_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "s3cr3t-of-aws", "RAY_AUTH_TOKEN": "s3cr3t-of-ray"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    record = run_trial(spec_of(), ArtefactStore(tmp_path), device=torch.device("cpu"))
    text = record.to_json()
    assert record.status == "completed"
    assert not [value for value in secrets.values() if value in text]
    assert set(record.hardware) == {
        "device",
        "machine",
        "threads",
        "training_precision",
        "measuring_precision",
    }
    assert set(json.loads(text)["versions"]) <= {
        "python", "defense-sweep", "torch", "torchvision", "numpy", "scikit-learn",
    }  # fmt: skip
