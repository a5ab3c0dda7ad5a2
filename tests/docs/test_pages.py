"""Pages of the documentation: links, commands that parse, Python that names what exists, words."""

import ast
import importlib
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pages
import pytest

from modernbert_jax.cli import arguments, registry
from modernbert_jax.errors import UserError

sys.path.append(str(pages.ROOT / "docs" / "generator"))
import api
import contents
import fields

LANGUAGES = ("bash", "console", "python")
SHELL = [b for page in pages.ALL for b in pages.blocks(page, "bash", "console")]
PYTHON = [b for page in pages.ALL for b in pages.blocks(page, "python")]


def calls() -> dict[tuple[str, ...], pages.Block]:
    """Every call of the program on the pages, with a block where it is."""
    found: dict[tuple[str, ...], pages.Block] = {}
    for block in SHELL:
        for command, _ in block.commands():
            for words in pages.programs(command):
                found.setdefault(tuple(words), block)
    return found


def test_every_block_is_read():
    opened = sum(p.read_text().count(f"```{name}\n") for p in pages.ALL for name in LANGUAGES)
    assert len(SHELL) + len(PYTHON) == opened > 100


def test_the_readme_is_short():
    assert len(pages.README.read_text().splitlines()) <= 200


def test_tables_of_the_readme_are_those_of_the_pages():
    readme, results = pages.README.read_text(), pages.ROOT / "docs" / "results"
    (speed,) = re.findall(r"^## Speed$(.*?)^\[All", readme, re.MULTILINE | re.DOTALL)
    numbers = re.findall(r" (\d[\d,.]*) \|", speed)
    assert len(numbers) >= 10
    page = (results / "speed.md").read_text()
    assert not [n for n in numbers if not re.search(rf"\b{re.escape(n)}\b", page)]
    (verified,) = re.findall(r"^## Verified$(.*?)^Run on", readme, re.MULTILINE | re.DOTALL)
    assert {*verified.split("\n")} <= {*(results / "verified.md").read_text().split("\n")}


def test_one_version():
    """In the project, the changelog, the citation and the page that shows it."""
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]["version"]
    for path, line in {
        "CHANGELOG.md": rf"## {project} - ",
        "CITATION.cff": rf"version: {project}\n",
        "docs/start/install.md": rf"modernbert-jax {project}\n",
    }.items():
        assert re.search(rf"^{line}", (pages.ROOT / path).read_text(), re.MULTILINE), path


def test_every_page_is_in_the_menu():
    listed = [name for names in contents.SECTIONS.values() for name in names.split()]
    written = {str(p.relative_to(pages.ROOT / "docs").with_suffix("")) for p in pages.PAGES}
    assert sorted(listed) == sorted({*written, *contents.GENERATED} - {"index"})


def test_pages_are_made_from_the_code():
    """All but the page of commands, whose help has a test of its own."""
    assert "| `peak_learning_rate` | required | Highest learning rate. |" in fields.page()
    for name, (title, _, names) in api.PAGES.items():
        page = api.page(name)
        assert page.startswith(f"# {title}\n") and f"reference/api/{name}" in contents.GENERATED
        assert all(f"## `{dotted}`" in page for dotted in names.split())


@pytest.mark.parametrize("page", pages.ALL, ids=lambda p: str(p.relative_to(pages.ROOT)))
def test_links_lead_somewhere(page):
    generated = {pages.ROOT / "docs" / f"{name}.md" for name in contents.GENERATED}
    for path, anchor in pages.links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists() or target in generated, path
        if anchor and target.exists():
            assert anchor in pages.anchors(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", pages.ALL, ids=lambda p: str(p.relative_to(pages.ROOT)))
def test_files_of_the_repository_are_there(page):
    """Those that a page names by their path."""
    folders = "modernbert_jax|convert|train|configs|tests|docs"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", pages.prose(page))
    made_later = "docs/results/hardware"
    assert not [p for p in named if not (pages.ROOT / p).exists() and p != made_later]


def test_commands_parse(tmp_path, monkeypatch):
    """By the real parser; nothing runs."""
    monkeypatch.chdir(tmp_path)
    for block in PYTHON:
        if name := re.match(r"# (\w+\.py)\n", block.text):
            (tmp_path / name[1]).write_text(block.text)
    found = calls()
    assert len(found) > 100
    problems = []
    for words, block in found.items():
        words = [word for word in words if word != "..."]
        if words[0] == "COMMAND" or words[-1] in ("--help", "--version"):
            continue
        try:
            name, rest = registry.find(words)
            arguments.parse(name, registry.COMMANDS[name], _with_values(rest, block.text))
        except (UserError, SystemExit) as error:
            problems.append(f"{block.place}: {' '.join(words)}: {error}")
    assert not problems, "\n".join(problems)


def _with_values(words: list[str], page: str) -> list[str]:
    """The words with variables of a shell replaced by their values, or the first one of a loop."""
    values = dict(re.findall(r'^(\w+)="(.*)"$', page, re.MULTILINE))
    values |= dict(re.findall(r"^for (\w+) in (\S+)", page, re.MULTILINE))
    line = shlex.join(words)
    for name, value in values.items():
        line = line.replace(f"'${name}'", value).replace(f"${name}", value)
    return shlex.split(line)


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: b.place)
def test_python_names_what_exists(block):
    """It compiles, and every name that it imports from this package is there."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modernbert_jax"):
            if node.module == "modernbert_jax.train.embed.beam":
                continue  # needs an extra
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(
                    f"{node.module}.{alias.name}"
                )


WORDS = (
    *("less politely", "goes on where", "poses as", "pose as", "on end", "behind the update"),
    *("lies in", "do not depend on it but", "stretch of training", "tried all the same"),
    *("beside 2.0", "updates that are not made", "what pretraining is worth", "0 is never"),
    *("of the yes", "beside its no", "which stay on disk", "no turn,", "one is less"),
)
"""Phrases of the left column of the guide to style; readers had to translate them."""


@pytest.mark.parametrize("page", [*pages.ALL, pages.ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_phrases_that_readers_had_to_translate(page):
    assert not _phrases(pages.prose(page))


def test_phrases_in_the_code():
    """Docstrings, comments, help and messages."""
    folders = ("modernbert_jax", "convert", "train", "configs", "tests", "docs")
    sources = [path for folder in folders for path in (pages.ROOT / folder).rglob("*.py")]
    sources.remove(Path(__file__))
    found = {str(path): words for path in sources if (words := _phrases(path.read_text()))}
    assert not found


def _phrases(text: str) -> list[str]:
    plain = " ".join(text.lower().split())
    return [words for words in WORDS if re.search(rf"\b{re.escape(words)}", plain)]
