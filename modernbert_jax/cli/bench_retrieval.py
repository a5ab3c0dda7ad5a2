"""The commands that compare training for retrieval: bench retrieval, bench retrieval-data."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_json
from modernbert_jax.ranges import Count, Natural
from modernbert_jax.train.bench.retrieval.settings import Settings

from . import output as printing
from .launch import CpuDevices
from .options import Flat


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalData:
    """Make a data set for `bench retrieval` from text: a BEIR folder with train, dev and test.

    titles: the first paragraph of a text is the query, the rest its document. functions: Go
    functions are queries, their comments the documents. questions: --input is a folder with
    corpus.jsonl, train.jsonl and dev.jsonl, whose pairs name documents by id. union: several such
    data sets, mixed, whose texts differ in length more than those of one.
    """

    kind: Annotated[
        Literal["titles", "functions", "questions", "union"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="KIND"),
    ]
    """What queries are made of."""
    input: tuple[str, ...]
    """Files of records with id and text, the folder of questions, or folders of data sets."""
    output: Path
    """Folder to write; must not exist."""
    dev: Count = 500
    """Pairs that are kept for the probe."""
    test: Count = 1000
    """Pairs that are searched for, where the source has no test split of its own."""
    pairs: Natural = 0
    """Takes the first so many pairs, and of a test split of the source the first --test, with their
    documents alone; 0 takes everything."""

    def run(self) -> None:
        """Write the folder, and print how much it holds."""
        from modernbert_jax.train.bench.retrieval import data

        sizes = {"dev": self.dev, "test": self.test, "pairs": self.pairs}
        counts = data.make(self.kind, self.input, self.output, **sizes)
        print(f"{self.output}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Settings):
    """Train for retrieval beside sentence-transformers, BM25 and the model as it is.

    Both sides train the same checkpoint with the same batches in the same order, loss, AdamW and
    schedule, in float32, each in a process of its own. One code measures both: nDCG@10, MRR@10 and
    recall@100 on the test, and during training the loss of kept groups. Interrupt it at any time;
    the same command in the same folder resumes.
    """

    devices: Flat[CpuDevices] = dataclasses.field(default_factory=CpuDevices)
    json: Path | None = None
    """JSON file for the numbers; an existing one is replaced."""

    def run(self) -> None:
        """Train all sides, and print their tables."""
        self.devices.expose()
        from modernbert_jax.train.bench.device.machine import processor
        from modernbert_jax.train.bench.retrieval import comparison, tables

        if self.json is not None:
            outputs.check_file(self.json, self.data, replaces=".json")
        results = []
        for result in comparison.compare(self):
            printing.print_to_stderr(tables.line(result))
            results.append(result)
            if self.json is not None:
                write_json(self.json, [dataclasses.asdict(r) for r in results])
        print(processor())
        tables.show(results)
