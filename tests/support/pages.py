"""The pages of the documentation: their text, links, and blocks of code.

A block that a test cannot run says so, and why, in a comment above it:

    <!-- run: no, it needs a pod -->

Output of a console block is compared, except its numbers. With `<!-- output: exact -->` above it
these are, too; with `<!-- output: no, it depends on the weights -->` nothing is.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ALL = [README, ROOT / "CONTRIBUTING.md", *PAGES]

FENCE = re.compile(r"((?:^<!--[^\n]*-->\n)*)^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NO = re.compile(r"<!-- run: no, (.+) -->")
OUTPUT = re.compile(r"<!-- output: (exact|no)\b.* -->")


class Block(NamedTuple):
    """A block of code."""

    page: Path
    line: int
    language: str
    text: str
    reason: str
    """Why it cannot run; "" where it can."""
    output: str
    """What is compared of its output: "exact", "no", or "" for all but numbers."""

    @property
    def place(self) -> str:
        """The page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command of a shell or console block, with the lines of its output."""
        console = self.language == "console"
        found: list[tuple[str, list[str]]] = []
        open_ = False
        for line in self.text.splitlines():
            if open_:
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            elif console and not line.startswith("$ "):
                found[-1][1].append(line)
                continue
            else:
                found.append((line.removeprefix("$ ") if console else line, []))
            open_ = line.endswith("\\") or _is_open(found[-1][0])
        return [(command, out) for command, out in found if command and command[0] != "#"]


def _is_open(command: str) -> bool:
    """Whether a loop has not ended."""
    return bool(re.search(r"^for .*; do$", command, re.MULTILINE)) and "\ndone" not in command


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The blocks of a page in some languages."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        marks, language, code = match.groups()
        if language in languages:
            no, output = NO.search(marks), OUTPUT.search(marks)
            line = text[: match.start(2)].count("\n") + 1
            yield Block(
                page, line, language, code, no[1] if no else "", output[1] if output else ""
            )


def prose(page: Path) -> str:
    """The text of a page without its blocks of code and comments."""
    return re.sub(r"^```.*?^```|<!--.*?-->", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def programs(command: str) -> Iterator[list[str]]:
    """The arguments of every call of the program in a command, also in its quoted arguments."""
    line = command.replace("\\\n", " ").replace("\n", ";")
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&()<>")
    lexer.whitespace_split = True
    call: list[str] | None = None
    for word in [*lexer, ";"]:
        if word and set(word) <= set(";|&()<>"):
            if call is not None:
                yield call
            call = None
        elif word == "modernbert-jax" and call is None:
            call = []
        elif call is not None:
            call.append(word)
        elif word.startswith(("modernbert-jax ", "srun modernbert-jax ")):
            yield from programs(word)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        found.add(slug)
    return found


def links(page: Path) -> list[tuple[str, str]]:
    """The path and anchor of every link to another page or place."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    parts = [t.partition("#") for t in targets if "://" not in t]
    return [(path, anchor) for path, _, anchor in parts]
