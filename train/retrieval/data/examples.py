"""`TextExample` and `ExampleSet`: the texts of an example by column, and its target."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

Targets = Literal["none", "label", "scores"]
"""Targets of a data set: none; a number for each example; or a number for each document of it."""


class TextExample(NamedTuple):
    """Texts that are scored against each other, the first against all others."""

    texts: tuple[str, ...]
    """Texts in the order of the columns: the query, then its documents."""
    target: tuple[float, ...] = ()
    """The label, or a score for each document; empty without targets."""
    place: str = ""
    """Position as "FILE:LINE"."""


@dataclasses.dataclass(frozen=True)
class ExampleSet:
    """The examples of one data set, all with the same columns and the same kind of target."""

    name: str
    """Name of the data set, for messages and metrics."""
    columns: tuple[str, ...]
    """Names of the columns. All texts after the last column belong to the last one, which is then a
    list; examples may have different numbers of texts there."""
    examples: Sequence[TextExample]
    """At least one example."""
    targets: Targets = "none"
    """What the targets are."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TextExample:
        return self.examples[index]

    @property
    def most_texts(self) -> int:
        """The largest number of texts of an example."""
        return max((len(example.texts) for example in self.examples), default=0)

    def column(self, index: int) -> str:
        """Name of the column that the text of an index belongs to."""
        return self.columns[min(index, len(self.columns) - 1)]
