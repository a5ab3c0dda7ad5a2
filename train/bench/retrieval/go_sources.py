"""Functions of Go sources, with the comments that document them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^func (?:\([^)\n]*\) )?(\w+)", re.MULTILINE)
_TOKEN = re.compile(
    r"""
    //[^\n]*                          # comments, whose brackets do not count
    | /\*.*?\*/
    | `[^`]*`                         # literals, too
    | "(?:\\.|[^"\\\n])*"
    | '(?:\\.|[^'\\\n])*'
    | [][(){}\n]
    """,
    re.DOTALL | re.VERBOSE,
)
_DIRECTIVE = re.compile(r"//[a-z0-9]+:")


class Function(NamedTuple):
    """A documented function or method."""

    name: str
    comment: str
    """The comment above it, without its slashes and directives."""
    code: str
    """The declaration with its body."""


def functions(source: str) -> Iterator[Function]:
    """Yield the functions at the top level of a formatted source that have a comment and a body."""
    for head in _HEAD.finditer(source):
        code = _declaration(source, head.start())
        comment = _comment(source, head.start())
        if comment and code.endswith("}") and code.count("\n") > 1:
            yield Function(head[1], comment, code)


def _declaration(source: str, start: int) -> str:
    """The text from `start` to the first end of a line that is outside of all brackets."""
    depth = 0
    for token in _TOKEN.finditer(source, start):
        match token[0]:
            case "(" | "[" | "{":
                depth += 1
            case ")" | "]" | "}":
                depth -= 1
            case "\n" if depth == 0:
                return source[start : token.start()]
    return source[start:].rstrip()


def _comment(source: str, end: int) -> str:
    """The text of the comment lines that end directly above a position."""
    lines: list[str] = []
    for line in reversed(source[:end].split("\n")[:-1]):
        if not line.startswith("//"):
            break
        if not _DIRECTIVE.match(line):
            lines.append(line[2:].removeprefix(" "))
    return "\n".join(reversed(lines)).strip()
