"""The pages that users read, and the blocks of code on them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\S+)\n")
_CALL = re.compile(r"(?:-m orchestrator|^defense-sweep) (.+?)(?= && | > |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the page, the language, and the text as printed."""

    page: str
    language: str
    text: str

    @property
    def path(self) -> str:
        """Return the path that the block names in its first line; empty where it names none."""
        found = _NAMED.match(self.text)
        return found[1] if found else ""


def pages() -> dict[str, str]:
    """Return the text of each page by its path."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    return {file.relative_to(ROOT).as_posix(): file.read_text() for file in sorted(files)}


def blocks(language: str | None = None) -> list[Block]:
    """Return the blocks of all pages, or those in one language."""
    found = [
        Block(page, *match.groups())
        for page, text in pages().items()
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def example(path: str) -> str:
    """Return the text of the one block that begins with a path."""
    (found,) = [block for block in blocks() if block.path == path and block.language != "diff"]
    return found.text


def shell_lines() -> list[str]:
    """Return every line that a shell is to run, each once, in the order of the pages."""
    lines = [line for block in blocks("sh") for line in block.text.splitlines() if line.strip()]
    return list(dict.fromkeys(lines))


def calls(text: str) -> list[str]:
    """Return what follows the name of our command line, each once."""
    return list(dict.fromkeys(call.strip() for call in _CALL.findall(text)))
