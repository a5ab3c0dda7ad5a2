"""Kinds of runs for retrieval, and the options that not all of them have."""

from typing import Literal

Kind = Literal["embedding", "late-interaction", "reranker", "sparse"]
"""What a run trains: texts to vectors, tokens to vectors, pairs of texts to scores, or texts to
weights of the vocabulary's ids."""

KINDS: dict[Kind, str] = {
    "embedding": "Train an embedding model: a vector for each text, on pairs, lists or scores.",
    "late-interaction": "Train a late-interaction model (ColBERT): a vector for each token.",
    "reranker": "Train a reranker: a score for each pair of query and document.",
    "sparse": "Train a sparse encoder (SPLADE): weights of the vocabulary's ids for each text.",
}
"""Kinds of runs with one line about each, for the user."""

_EMBEDDING: tuple[Kind, ...] = ("embedding",)
_LATE: tuple[Kind, ...] = ("late-interaction",)
_SPARSE: tuple[Kind, ...] = ("sparse",)

KINDS_OF: dict[str, tuple[Kind, ...]] = {
    "lengths": (*_EMBEDDING, *_LATE, *_SPARSE),
    "projection_dims": (*_EMBEDDING, *_LATE),
    **dict.fromkeys(("pooling", "include_prompt"), (*_EMBEDDING, "reranker")),
    **dict.fromkeys(("normalize", "similarity", "guide"), _EMBEDDING),
    **dict.fromkeys(
        ("matryoshka_dims", "matryoshka_weights", "matryoshka_dims_per_step"), _EMBEDDING
    ),
    **dict.fromkeys(("projection_hidden", "scoring", "skiplist", "xtr_top_k"), _LATE),
    **dict.fromkeys(("query_expansion", "expansion_length", "attend_to_expansion"), _LATE),
    **dict.fromkeys(("head", "drawn_negatives"), ("reranker",)),
    **dict.fromkeys(("query_flops", "document_flops", "flops_ramp", "max_active_dims"), _SPARSE),
}
"""The kinds of runs that have an option, where not all have it."""
