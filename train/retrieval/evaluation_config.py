"""`Evaluating`: options of the evaluation of an embedding model, a reranker or a run."""

import dataclasses
from pathlib import Path
from typing import Literal

from modernbert_jax.ranges import Count

from .search.config import Encoders

Protocol = Literal[
    "beir",
    "beir-dev",
    "beir-colbert",
    "beir-pylate",
    "nanobeir",
    "mldr-ood",
    "mldr-id",
    "codesearchnet",
    "stackoverflow-qa",
]
"""A key of `evaluation.protocols.PROTOCOLS`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluating(Encoders):
    """How retrieval, reranking, sts and triplets are evaluated."""

    split: str = "test"
    """Name of the judgements of a collection: qrels/SPLIT.tsv."""
    metrics: tuple[str, ...] = ()
    """Metrics as NAME@K: ndcg, mrr, map, recall, precision, accuracy at any K, or map, mrr and ndcg
    of all. Empty is the usual ones of the task."""
    exclude_self: bool = False
    """Leave out documents with the id of their query, as for ArguAna and Quora."""
    complete: bool = False
    """Count judged queries that are not in --run-file with 0, as trec_eval -c; by default they are
    left out."""
    run_file: str = ""
    """Run in TREC's format that is evaluated in place of a model; --data is then a collection or a
    file of judgements."""
    rerank: str = ""
    """Reranker, or late-interaction model, of the documents that --model finds; empty is none."""
    rerank_top: Count = 100
    """Documents of each query that are reranked, or that are taken from the candidates of a
    collection for reranking."""
    positives: bool = True
    """Whether relevant documents that are not among the candidates are reranked, too."""
    protocol: Protocol | None = None
    """Collections and their settings from a publication; --data is the folder that holds their
    folders. Missing ones are named. --query-length and --max-length replace its lengths."""
    columns: tuple[str, ...] = ()
    """Columns of the texts of sts, triplets and lists to rerank. Empty finds the usual names."""
    target: str | None = None
    """Column of the labels. None finds the usual names."""
    cache: Path | None = None
    """Folder for the vectors of corpora, so that an interrupted evaluation resumes. None keeps
    none."""
    format: Literal["json", "text", "markdown"] = "json"
    """What is printed: JSON, or a table."""
