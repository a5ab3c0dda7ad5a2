"""The commands that compare training for retrieval: bench retrieval, bench retrieval-data."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from modernbert_jax.ranges import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalData:
    """Make a data set for `bench retrieval` from text: a BEIR folder with train, dev and test.

    titles: the first paragraph of a text is the query, the rest its document. functions: Go
    functions are queries, their comments the documents. questions: --input is a folder with
    corpus.jsonl, train.jsonl and dev.jsonl, whose pairs name documents by id.
    """

    kind: Annotated[
        Literal["titles", "functions", "questions"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="KIND"),
    ]
    """What queries are made of."""
    input: tuple[str, ...]
    """Files of records with id and text, or the folder of questions."""
    output: Path
    """Folder to write; must not exist."""
    dev: Count = 500
    """Pairs that are kept for the probe."""
    test: Count = 1000
    """Pairs that are searched for, where the source has no test split of its own."""

    def run(self) -> None:
        """Write the folder, and print how much it holds."""
        from modernbert_jax.train.bench.retrieval import data

        counts = data.make(self.kind, self.input, self.output, dev=self.dev, test=self.test)
        print(f"{self.output}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))
