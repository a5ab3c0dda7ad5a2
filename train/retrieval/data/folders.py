"""Training examples of a folder: a corpus with rows that name its documents by their ids.

FOLDER/corpus.jsonl  queries.jsonl  qrels/train.tsv       BEIR: an example for each positive
FOLDER/corpus.jsonl  train.jsonl                          rows with ids of documents
FOLDER/corpus.tsv    queries.tsv  train.jsonl             rows of query_id, document_ids, scores
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from modernbert_jax.io.paths import expanded

from ...tasks import Problems, Record, stream
from . import beir, runs


class Folder(NamedTuple):
    """A split of a folder."""

    name: str
    corpus: list[str]
    """Files of the documents by id."""
    queries: list[str]
    """Files of the queries by id; may be empty."""
    rows: str
    """File of the rows or judgements."""

    def records(self, problems: Problems) -> Iterator[Record]:
        """The rows; or a row with ids for each document that is judged relevant."""
        if Path(self.rows).parent.name != beir.QRELS:
            yield from stream([self.rows], problems)
            return
        for place, query, document, grade in runs.judgements(self.rows, problems):
            with problems.at(place):
                if runs.grade_of(grade) > 0:
                    yield Record(place, {"query_id": query, "positive_id": document})


def find(path: str | Path, split: str = "train") -> Folder | None:
    """The folder that a path means: the split of a folder, or FOLDER/qrels/SPLIT.tsv; else None.

    Raises:
        UserError: the folder has no such split.
    """
    path = Path(expanded(path))
    if path.parent.name == beir.QRELS and path.is_file():
        folder, rows = path.parent.parent, str(path)
    elif path.is_dir():
        folder, rows = path, ""
    else:
        return None
    if not beir.find(folder, beir.CORPUS):
        return None
    if not rows:
        own = beir.find(folder, split)
        rows = own[0] if own else beir.split_file(folder / beir.QRELS, split)
    corpus = beir.table(folder, beir.CORPUS)
    return Folder(folder.resolve().name, corpus, beir.find(folder, beir.QUERIES), rows)
