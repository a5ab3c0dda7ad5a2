"""The one exception for wrong input: programs print it as a line and exit with 2."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class UserError(ValueError):
    """The user's input is wrong. The message is one line that names the thing and the remedy."""


def first_line(error: BaseException) -> str:
    """What another library says of an error, without the pages that may follow; or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ends a message about an unknown name with the nearest known one, or with all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def together(*steps: Callable[[], Any]) -> list[Any]:
    """What each step returns; or one `UserError` with what any of them complains of."""
    results, problems = [], []
    for step in steps:
        try:
            results.append(step())
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return results
