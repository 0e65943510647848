"""What README and docs/ name: links, paths, options and tables are those of the project."""

import re
import shlex

import pytest
import typer.core
import typer.main

from orchestrator.cli import app
from orchestrator.commands.list import LISTS, rows_at_once
from orchestrator.commands.markdown import markdown
from orchestrator.program import main
from search_spaces import available
from tests.docs.pages import ROOT, pages, shell_lines
from trainables.attacks import ATTACKS
from trainables.datasets import DATASETS
from trainables.defenses import DEFENSES
from trainables.defenses.defense import TRAINING_HOOKS
from trainables.metrics import METRICS
from trainables.models import MODELS
from trainables.threats import THREATS

PAGES = pages()
README = PAGES["README.md"]
GUIDES = (
    "choosing", "extending", "spaces", "cluster", "reproductions", "metrics", "architecture",
    "commands",
)  # fmt: skip
OF_OTHER_PROGRAMS = {"--working-dir", "--tiny"}
"""Of `ray job submit` and of `benchmarks.gpu`."""


def test_readme_is_short_and_links_to_every_guide() -> None:
    assert len(README.splitlines()) <= 200
    targets = set(re.findall(r"\]\(([^)#]+)\)", README))
    assert {f"docs/{guide}.md" for guide in GUIDES} == {
        page for page in PAGES if page.startswith("docs/")
    }
    assert {f"docs/{guide}.md" for guide in GUIDES} <= targets
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} <= targets


@pytest.mark.parametrize("page", PAGES)
def test_a_page_links_to_what_is_there(page: str) -> None:
    text = PAGES[page]
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).is_file(), target
    rooms = "trainables|tests|search_spaces|results|orchestrator|benchmarks|docs|deploy"
    for path in re.findall(rf"`((?:{rooms})/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_prose_fits_a_hundred_columns(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for line in prose.splitlines():
        assert len(line) <= 100 or line.startswith(("|", "![")), line


def test_readme_names_everything_in_the_box() -> None:
    box = README.partition("## What is in the box")[2].partition("\n\nThe audit")[0]
    named = set(re.findall(r"`([\w-]+)`", box))
    for registry in (DEFENSES, ATTACKS, THREATS, DATASETS, MODELS, available()):
        assert set(registry) <= named, set(registry) - named


def test_the_hooks_of_a_defense_are_named_in_their_order() -> None:
    hooks = PAGES["docs/extending.md"].partition("The hooks, in the order")[2].partition(". Each")
    assert tuple(re.findall(r"`(\w+)`", hooks[0])) == (*TRAINING_HOOKS, "deploy")


def test_every_reproduction_has_a_row() -> None:
    rows = [line for line in PAGES["docs/reproductions.md"].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    folder = ROOT / "search_spaces" / "reproductions"
    assert named == {file.stem for file in folder.glob("*.yaml")}


def test_the_page_of_metrics_is_what_its_command_prints() -> None:
    printed = markdown("metrics", rows_at_once("metrics"))
    command = "python -m orchestrator list metrics --markdown > docs/metrics.md"
    assert command in shell_lines() and command in printed
    assert PAGES["docs/metrics.md"] == printed, f"run: {command}"


def test_the_page_of_metrics_covers_every_metric() -> None:
    rows = re.findall(r"^\| `([\w<>]+)` \|", PAGES["docs/metrics.md"], re.MULTILINE)
    assert len(rows) == len(set(rows))
    patterns = [re.escape(row).replace("<attack>", r"\w+") for row in rows]
    for name in METRICS:
        assert any(re.fullmatch(pattern, name) for pattern in patterns), name


@pytest.mark.parametrize("what", LISTS)
def test_a_list_in_markdown_has_a_row_for_each_entry(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["orchestrator", "list", what, "--markdown"])
    assert main() == 0
    printed = capsys.readouterr().out
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    if what != "metrics":
        assert len(table) == 2 + len(LISTS[what]())


def test_a_list_is_markdown_or_json_but_not_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["orchestrator", "list", "models", "--json", "--markdown"])
    assert main() == 2
    assert "exclude each other" in capsys.readouterr().err


def _commands() -> dict[str, set[str]]:
    """Return the long options of each command of the command line."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {
        name: {option for p in command.params for option in p.opts if option.startswith("--")}
        for name, command in group.commands.items()
    }


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_a_page_names_exist(page: str) -> None:
    commands = _commands()
    group = {"--version", "--install-completion", "--help"}
    known = group.union(*commands.values()) | OF_OTHER_PROGRAMS
    for option in re.findall(r"`(--[\w-]+)", PAGES[page]):
        assert option in known, option
    for words in map(shlex.split, re.findall(r"`([a-z]+ --[\w-]+[^`\n]*)`", PAGES[page])):
        if words[0] in commands:
            assert {w for w in words if w.startswith("--")} <= commands[words[0]], words


def test_every_option_of_launch_is_in_its_table() -> None:
    table = PAGES["docs/commands.md"].partition("| options of `launch` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(--[\w-]+)`", table)) == _commands()["launch"]


def test_every_command_is_in_the_table_of_commands() -> None:
    table = PAGES["docs/commands.md"].partition("| command |")[2].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[1:]]
    assert set(re.findall(r"`(\w+)`", " ".join(first_cells))) == set(_commands())


def test_the_version_of_the_changelog_is_the_project_s() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"\n## {version[1]}\n" in PAGES["CHANGELOG.md"]
