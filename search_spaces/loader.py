"""The one loader of space files: YAML -> Space, strict, with errors that name file and place."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from search_spaces.schema import SpaceFile
from trainables.declared import NOTHING
from trainables.errors import InputError
from trainables.storage.folders import absolute_place, redacted

if TYPE_CHECKING:  # it needs the defenses, and so torch; what a file says can be read without
    from search_spaces.space import Space

    _Loader = yaml.SafeLoader
else:
    # libyaml's parser, which PyYAML's wheels bring along, is ten times as fast as Python's.
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

FOLDER = Path(__file__).parent
DEFAULT_BUDGET = "quick"
"""What a reproduction that declares it runs with where no --budget is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says in the place of a space file; None leaves the file's word."""

    dataset: str | None = None
    image_size: int | None = None
    resize: str | None = None
    skip_bad_images: bool | None = None
    model: str | None = None
    weights: str | None = None
    """A checkpoint's file or URI, for the model."""
    trained_on: str | None = None
    trials: int | None = None
    seed: int | None = None
    budget: str | None = None


def available() -> dict[str, Path]:
    """List the spaces that come with the project, by name."""
    files = [*FOLDER.glob("*.yaml"), *FOLDER.glob("reproductions/*.yaml")]
    return {path.stem: path for path in sorted(files)}


def load_space(name_or_path: str, overrides: Overrides | None = None) -> Space:
    """Load a space by name or from a file.

    Raises InputError, in one line with the file and the place, for anything that is not right.
    """
    from search_spaces.space import build_space

    file = read_space_file(name_or_path, overrides)
    try:
        return build_space(file)
    except InputError as error:
        raise InputError(f"{_find(name_or_path)}: {error}") from None


def read_space_file(name_or_path: str, overrides: Overrides | None = None) -> SpaceFile:
    """Read a space's file with what the command line says in its place.

    Raises InputError, in one line with the file and the place, for what has not the shape of one.
    What it means is checked by `load_space`.
    """
    path = _find(name_or_path)
    plain = _read(path)
    try:
        file = SpaceFile.model_validate(plain)
        return _overridden(file, overrides or Overrides())
    except ValidationError as error:
        raise InputError(f"{path}: {_first_line(error)}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def stored_space(manifest: Mapping[str, Any]) -> Space:
    """Build the space that a run's manifest holds; InputError where that is none of ours."""
    from search_spaces.space import build_space

    try:
        plain = {
            **manifest["space"],
            "description": manifest["description"],
            "resources": manifest.get("resources", {}),
            "audit": manifest.get("audit_asked", {}),
        }
        space = build_space(SpaceFile.model_validate(plain))
        return replace(space, accepted=str(manifest.get("inputs", {}).get("accepted", "")))
    except KeyError as error:
        raise InputError(f"the run's manifest lacks {error}; launch the run again") from None
    except ValidationError as error:
        raise InputError(
            f"the space in the run's manifest is of another version ({_first_line(error)})"
        ) from None


def _find(name_or_path: str) -> Path:
    known = available()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise InputError(f"{path}: there is no such space file")
        return path
    raise InputError(f"unknown space {name_or_path!r}; known: {', '.join(known)}, or a .yaml file")


class _UniqueKeys(_Loader):
    """YAML without the silent loss of a key that appears twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *anchor`: what it brings may be overridden
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        plain = yaml.load(path.read_text(), _UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise InputError(f"{path}: {place}{problem}") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}: a space file is a mapping with name, scenarios, defenses, ..")
    return plain


def _overridden(file: SpaceFile, overrides: Overrides) -> SpaceFile:
    plain = file.model_dump()
    for scenario in plain["scenarios"]:
        if overrides.dataset is not None and scenario["dataset"] != overrides.dataset:
            scenario["dataset"] = overrides.dataset
            if file.published is None:
                # Another data set brings its own network and training; a reproduction keeps its.
                scenario |= {"model": None, "training": {}}
    budget = overrides.budget or (DEFAULT_BUDGET if DEFAULT_BUDGET in file.budgets else None)
    if budget is not None:
        if budget not in file.budgets:
            known = ", ".join(file.budgets) or "none: only reproductions have budgets"
            raise InputError(f"unknown budget {budget!r}; known: {known}")
        _apply_budget(plain, plain["budgets"][budget])
    for scenario in plain["scenarios"]:
        if overrides.model is not None:
            scenario["model"] = overrides.model
        scenario["model"] = _with_weights(scenario["model"], overrides.weights)
        for name in ("image_size", "resize", "skip_bad_images", "trained_on"):
            if (value := getattr(overrides, name)) is not None:
                scenario[name] = value
        if scenario["trained_on"] not in (None, NOTHING):
            scenario["trained_on"] = absolute_place(scenario["trained_on"])
    if overrides.trials is not None:
        plain["search"]["trials"] = overrides.trials
    if overrides.seed is not None:
        plain["search"]["seed"] = overrides.seed
        plain["seeds"] = [overrides.seed + i for i in range(len(plain["seeds"]))]
    return SpaceFile.model_validate(plain)


def _with_weights(model: str | dict[str, Any] | None, weights: str | None) -> Any:
    """Return a scenario's model with the weights that are given, at an absolute place: a run is
    resumed from wherever."""
    if weights is not None and model is None:
        raise InputError(f"--weights {redacted(weights)}: name their network with --model")
    if weights is not None:
        model = {"name": model} if isinstance(model, str) else dict(model or {})
        model["weights"] = weights
    if isinstance(model, dict) and model.get("weights"):
        model["weights"] = absolute_place(model["weights"])
    return model


def _apply_budget(plain: dict[str, Any], budget: Mapping[str, Any]) -> None:
    for scenario in plain["scenarios"]:
        scenario["training"] |= budget["training"]
        if budget["model"] is not None:
            scenario["model"] = budget["model"]
    for name in ("train_images", "measured_images"):
        plain[name] = budget[name]
    for name, changes in budget["threats"].items():
        plain["threats"][name] = {**(plain["threats"].get(name) or {}), **(changes or {})}


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        section = SpaceFile if len(first["loc"]) == 1 else None
        known = f"; known: {', '.join(section.model_fields)}" if section else ""
        return f"{place}: unknown key{known}{more}"
    return f"{place}: {first['msg']}{more}"
