"""`Searching`: everything that decides what a search finds, and where it is written."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Count, Length, Natural

BM25 = "bm25"
"""Name of the model that is BM25."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoders:
    """How models encode queries and documents."""

    query_prompt: str | None = None
    """Prefix of queries. None is the model's prompt of that name; "" is none."""
    corpus_prompt: str | None = None
    """Prefix of documents. None is the model's prompt named document, passage or corpus; "" is
    none."""
    query_length: Length | None = None
    """Longest query in tokens, with its prompt. None is the model's own."""
    max_length: Length | None = None
    """Longest document, or pair of the reranker, in tokens. None is the model's own."""
    pooling: Literal["mean", "cls", "max", "lasttoken", "weightedmean"] | None = None
    """Pooling in place of all modules after the encoder. None is the model's own."""
    dims: Natural = 0
    """How many of the first numbers of a vector to compare; 0 is the model's own."""
    similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None
    """Similarity of vectors. None is the model's own."""
    batch_tokens: Count = 8192
    """Tokens per batch on each device."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation."""
    weights: Literal["float32", "bfloat16", "int8"] = "float32"
    """Type in which matrices are kept in memory; int8 has a scale for each channel."""


VECTORS = ("query_prompt", "corpus_prompt", "query_length", "pooling", "dims", "similarity")
"""Options of `Encoders` that only models with vectors have."""


INDEX = ("index", "index_type", "index_links", "index_depth", "index_neighbours")
"""Options of `Searching` for approximate search."""


def check_unused(options: Any, names: Iterable[str], why: str) -> None:
    """Raise `UserError` if one of these options has another value than its default."""
    for field in dataclasses.fields(options):
        if field.name in names and getattr(options, field.name) != field.default:
            raise UserError(f"--{field.name.replace('_', '-')} {why}; leave it out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searching(Encoders):
    """What is searched, by what, and where the results are written."""

    model: str = ""
    """Embedding model of any format, or the name of one on the hub; or bm25. Empty with
    --run-file."""
    corpus: str
    """Documents: a folder with corpus.jsonl, as BEIR has it; or a file or pattern with the columns
    `_id`, `title` and `text`."""
    queries: str = ""
    """Queries: a file with the columns `_id` and `text`, or a folder with queries.jsonl. Empty is
    queries.jsonl in the folder of --corpus."""
    output: Path
    """New file to write, in TREC's run format: query Q0 document rank score tag."""
    top_k: Count = 100
    """Number of documents for each query."""
    run_file: str = ""
    """Run whose documents are reranked, in place of a search by --model."""
    rerank: str = ""
    """Reranker or late-interaction model of any format, or the name of one on the hub, that orders
    the first documents of every query by its logits or by MaxSim. Empty reranks nothing."""
    rerank_top: Count = 100
    """Documents of each query that are reranked; the others are left out of the output."""
    exclude_self: bool = False
    """Leave out documents with the id of their query, as for ArguAna and Quora."""
    index: Path | None = None
    """File of an index for approximate search, by FAISS or, of the tokens of a late-interaction
    model, by Voyager; it is written if it does not exist. None compares every query with every
    document."""
    index_type: str = "HNSW32"
    """Kind of FAISS index, as faiss.index_factory reads it: Flat, HNSW32, "IVF4096,Flat"."""
    index_links: Count = 200
    """Links of a token in an index of tokens (M)."""
    index_depth: Count = 500
    """Tokens that are looked at when a token is put into that index, or looked up in it (ef)."""
    index_neighbours: Count = 100
    """Nearest tokens of each of a query's tokens; the documents that they belong to are scored."""
    cache: Path | None = None
    """Folder for the vectors of the corpus, which another search with the same model uses again.
    None is the output with the ending .cache."""
    stored: Literal["float32", "float16", "int8"] = "float32"
    """How the vectors of the corpus are kept in it: float16 takes half the space, and int8, with a
    factor for each vector, a quarter. They are compared in float32."""
    tag: str = "modernbert-jax"
    """Last column of the output."""

    def __post_init__(self):
        ranges.check(self, "")
        if bool(self.model) == bool(self.run_file):
            raise UserError("pass either --model, which searches, or --run-file, to rerank a run")
        if self.run_file and not self.rerank:
            raise UserError("--run-file needs --rerank, the model that reranks it")
        if self.model in ("", BM25):
            unused = (*VECTORS, *INDEX)
            check_unused(self, unused, f"is not for {self.model or '--run-file'}")
        if self.run_file:
            check_unused(self, ("exclude_self",), "is not for --run-file")
        if not self.rerank:
            check_unused(self, ("rerank_top",), "is for --rerank")
        if self.index is None:
            check_unused(self, INDEX, "is for --index")
