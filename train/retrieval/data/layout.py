"""Which columns of a file are the query, the documents and the target."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from modernbert_jax.errors import UserError

from ...tasks.records import columns_of
from .examples import Targets

QUERIES = ("query", "anchor")
"""Names of the column of queries."""

PAIRS = (
    *(("sentence1", "sentence2"), ("sentence_A", "sentence_B"), ("text1", "text2")),
    *(("query", "document"), ("query", "passage"), ("query", "text")),
)
"""Columns of two texts with a label or score."""

POSITIVES = ("positive", "positives")
"""Names of the column of positives, which may be a list: one example for each."""

LISTS = ("documents", "passages", "positives", "negatives")
"""Names of columns of lists, which CSV has as text in brackets."""

TARGETS = ("label", "labels", "score", "scores")
"""Names of the column of targets."""

_NEGATIVE = re.compile(r"negative(?:_?(\d+))?")
_ID = re.compile(r"[_-]id(s?)$")


class Layout(NamedTuple):
    """Columns of a file by their meaning."""

    columns: tuple[str, ...]
    """Column or template of each text, the query first."""
    target: str = ""
    """Column of the targets; "" is none."""


def layout(
    available: Sequence[str], columns: Sequence[str] = (), target: str | None = None
) -> Layout:
    """Find the columns of a file.

    Args:
        available: names of the columns of the file.
        columns: those that the user names, in the order of their meaning; empty finds the usual
            ones. Names may end in `_id` or `_ids`.
        target: column of the targets; "" is none; None finds the usual one.

    Raises:
        UserError: no usual columns, or a named target that the file has not.
    """
    if target:
        if target.split(".")[0] not in available:
            raise UserError(f"has no {target!r}; it has {', '.join(available) or 'nothing'}")
    elif target is None:
        target = next((name for name in TARGETS if name in available), "")
    if columns:
        if len(columns) < 2:
            raise UserError(f"columns is {columns[0]!r}; name two or more: the query comes first")
        for column in columns:
            columns_of(column)
        return Layout(tuple(columns), target)
    return Layout(_usual(available, bool(target)), target)


def kind_of(layout: Layout, lists: bool) -> Targets:
    """The kind of targets; `lists` says whether the file has a list of them for each example."""
    return "none" if not layout.target else "scores" if lists else "label"


def role(column: str) -> str:
    """The name of a column without what says that it holds ids: "documents" of "document_ids"."""
    return _ID.sub(r"\1", column)


def _usual(available: Sequence[str], has_target: bool) -> tuple[str, ...]:
    by_role = {role(name): name for name in reversed(available)}
    query = next((by_role[name] for name in QUERIES if name in by_role), None)
    if query is not None:
        positive = next((by_role[name] for name in POSITIVES if name in by_role), None)
        if positive is not None:
            return (query, positive, *_negatives(by_role))
        listed = next((by_role[name] for name in LISTS[:2] if name in by_role), None)
        listed = listed or by_role.get("document") if has_target else None
        if listed is not None:
            return (query, listed)
    for pair in PAIRS if has_target else ():
        if all(name in by_role for name in pair):
            return (by_role[pair[0]], by_role[pair[1]])
    raise UserError(
        f"has the columns {', '.join(available) or 'nothing'}; name those of the texts in their"
        " order, the query first, as in: query positive negative"
    )


def _negatives(by_role: dict[str, str]) -> list[str]:
    """The columns of negatives in the order of their numbers, or the one that holds lists."""
    if "negatives" in by_role:
        return [by_role["negatives"]]
    numbers = {name: match for name in by_role if (match := _NEGATIVE.fullmatch(name))}
    return [by_role[n] for n in sorted(numbers, key=lambda n: int(numbers[n][1] or 0))]
