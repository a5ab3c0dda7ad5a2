"""`Mining`: everything that decides what is mined, and where it is written."""

import dataclasses
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Length

from ..search.config import BM25, VECTORS, Encoders, check_unused
from .rows import Format, check_ending
from .rules import Rules


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What is mined from, by what, and to where."""

    model: str
    """Embedding model of any format, or the name of one on the hub; or bm25."""
    data: str
    """Queries with positives: a file or pattern of what `finetune` reads, or a folder of a corpus
    with them. The first two columns count; equal queries are one query with several positives."""
    output: Path
    """New file to write: .jsonl (also .gz, .zst) or .parquet."""
    corpus: str = ""
    """File or pattern of documents that may become negatives beside the positives: `text`, and
    `title` and `_id` if there are any. If the positives are ids of its documents, they are replaced
    by their texts. Empty is the corpus of the folder of `data`, if it is one."""
    columns: tuple[str, ...] = ()
    """Columns or templates of the query and the positive. Empty finds the usual names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mining(Rules, Source, Encoders):
    """What is mined, by which rules, and how it is written."""

    format: Format = "triplet"
    """triplet: query, positive, negative, for each positive with each negative. n-tuple: query,
    positive, negative_1, ..., for each positive of a query that has all negatives. labeled-pair:
    query, document, label. labeled-list: query, documents, labels, once for each query."""
    scores: bool = False
    """Write the scores of the documents: as `scores`, or in place of the labels."""
    include_positives: bool = False
    """Let the positives be ranked among the candidates, as in data for evaluating rerankers. Only
    for labeled-pair and labeled-list; positives beyond the candidates follow at the end."""
    max_length: Length | None = None
    """Longest text of the model in tokens, with its prompt. None is the model's own."""
    cross_encoder: str = ""
    """Reranker whose scores (logits) replace those of the model for all candidates and positives;
    pairs have its own length. Empty is none."""
    cache: Path | None = None
    """Folder for vectors and candidates, which another run with other rules uses again. None is the
    output with the ending .cache."""

    def check(self) -> None:
        """Raise `UserError` for values that are out of range, or exclude each other."""
        super().check()
        check_ending(self.output)
        if self.include_positives and self.format in ("triplet", "n-tuple"):
            raise UserError(
                f"include_positives: format {self.format} would make positives their own"
                " negatives; use labeled-pair or labeled-list"
            )
        if self.model == BM25:
            check_unused(self, (*VECTORS, "max_length"), "is not for bm25")
