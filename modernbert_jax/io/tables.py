"""Tables of text: the first column to the left, the others to the right."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells of a table, padded to the widths of their columns; at least one row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])] for first, *others in rows
    ]


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, without space at their ends."""
    return ["  ".join(cells).rstrip() for cells in aligned(rows)]
