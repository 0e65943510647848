"""The files of a user's module: its own and those that it imports from its package or folder.

Read as text: nothing is imported, so that a fingerprint can be taken before any code runs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

OURS = frozenset({"benchmarks", "orchestrator", "results", "search_spaces", "trainables"})
"""Our own packages are versioned stage by stage, not by their files."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def files_of_module(name: str, file: Path) -> dict[str, Path]:
    """Return the module's file, and those that it imports from its own root, by dotted name.

    The root is the folder that Python would find the module's outermost package in. In a folder of
    installed packages only the module's own package counts. A package's `__init__` counts where it
    holds code.
    """
    root = file.parents[name.count(".") + (file.name == "__init__.py")]
    found, open_ = {name: file}, [(name, file)]
    for parent in _parents(name):
        open_ += _new_module(parent, root, found)
    while open_:
        importer, path = open_.pop()
        is_package = path.name == "__init__.py"
        for imported in _imported_names(path, importer, is_package):
            if _belongs(imported, name, root):
                open_ += _new_module(imported, root, found)
    return found


def _belongs(imported: str, module: str, root: Path) -> bool:
    outermost = imported.partition(".")[0]
    if outermost in OURS:
        return False
    return outermost == module.partition(".")[0] or not _INSTALLED & set(root.parts)


def _new_module(name: str, root: Path, found: dict[str, Path]) -> list[tuple[str, Path]]:
    """Add a module and its packages to `found` and return those that are new."""
    new = []
    for part in (*_parents(name), name):
        file = _file_of(part, root)
        if file is None or part in found:
            continue
        if file.name == "__init__.py" and not _holds_code(file):
            continue
        found[part] = file
        new.append((part, file))
    return new


def _file_of(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _imported_names(file: Path, name: str, is_package: bool) -> Iterator[str]:
    """Return the dotted names that a file imports anywhere; what it takes from a module may be a
    module itself."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, name, is_package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _absolute(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = name.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _holds_code(file: Path) -> bool:
    return any(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in _tree(file).body
    )


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])  # importing it names the fault
