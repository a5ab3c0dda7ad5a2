"""`UserError`, the exception for wrong input, and helpers for its messages."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

LONGEST = 4000
"""Characters of an error's message at most."""


class UserError(ValueError):
    """Wrong input of the user. The message is one line that names the cause and the remedy.

    Programs print it and exit with 2. A message of more than `LONGEST` characters is clipped.
    """

    def __init__(self, message: str):
        """An error with this message."""
        super().__init__(clipped(" ".join(filter(None, map(str.strip, message.splitlines())))))


def first_line(error: BaseException) -> str:
    """First line of an error's message, or its type where the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def clipped(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and end with the number of characters left out between them."""
    if len(text) <= longest:
        return text
    end = longest // 4
    cut = f" ... ({len(text) - longest:,} characters) ... "
    return f"{text[: longest - end]}{cut}{text[len(text) - end :]}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(known)}" if known else "none is known"


def together(*steps: Callable[[], Any]) -> list[Any]:
    """Results of all steps.

    Raises:
        UserError: the messages of all steps that raised one, joined.
    """
    results, problems = [], []
    for step in steps:
        try:
            results.append(step())
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return results
