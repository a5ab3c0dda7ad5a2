"""The one exception for wrong input: programs print it as a line and exit with 2."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The user's input is wrong. The message is one line that names the thing and the remedy."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ends a message about an unknown name with the nearest known one, or with all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
