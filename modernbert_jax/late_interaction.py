"""Late interaction (Khattab and Zaharia 2020): texts as token vectors, and their comparison.

Queries and documents have different prefixes, and queries may be filled up with tokens that attend
to the text but not the reverse. As in PyLate and sentence-transformers 6.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import LateInteraction, TokenPooling
from modernbert_jax.tokenizer import Tokenizer


class Tokens(NamedTuple):
    """Tokens of a query or document."""

    ids: list[int]
    visible: int
    """Number of the first tokens, to which others attend."""
    counted: np.ndarray
    """Boolean [tokens], whether a token's vector is part of the result."""


def tokenize(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    late: LateInteraction,
    *,
    is_query: bool,
    longest: int,
    lower_case: bool = False,
    cut: list[bool] | None = None,
) -> list[Tokens]:
    """Tokens of queries or documents.

    Spaces around a text are removed. A prefix that was added to the vocabulary as a token follows
    the token that begins every text; any other prefix is joined to the text.

    Args:
        texts: any number of texts.
        tokenizer: of the model.
        late: settings of the model.
        is_query: whether the texts are queries or documents.
        longest: longest text in tokens, where `late` has no length.
        lower_case: whether texts, and prefixes that are joined to them, are converted to lower
            case.
        cut: whether a text was cut is appended to it, for each.

    Raises:
        UserError: queries are filled up, and the tokenizer has no token for that; or lengths that
            contradict each other.
    """
    late.check()
    prefix = late.query_prefix if is_query else late.document_prefix
    length = (late.query_length if is_query else late.document_length) or longest
    inserted = added_tokens(tokenizer).get(prefix)
    texts = [text.strip() for text in texts]
    if inserted is None:
        texts = [prefix + text for text in texts]
    if lower_case:
        texts = [text.lower() for text in texts]
    if inserted is None:
        ids_of = tokenizer.encode(texts, max_length=length, cut=cut)
    else:
        ids_of = tokenizer.encode(texts, max_length=length - 1, cut=cut)
        ids_of = [[*ids[:1], inserted, *ids[1:]] for ids in ids_of]
    if not is_query:
        known = (tokenizer.backend.token_to_id(word) for word in late.skiplist)
        skipped = [i for i in known if i is not None]
        return [Tokens(ids, len(ids), ~np.isin(ids, skipped)) for ids in ids_of]
    shortest = {"none": 0, "fixed": length, "min": late.expansion_length or 0}[late.expansion]
    filler = filler_id(tokenizer, late) if shortest else 0
    filled = [ids + [filler] * (shortest - len(ids)) for ids in ids_of]
    return [
        Tokens(whole, len(whole if late.attend else ids), np.ones(len(whole), bool))
        for ids, whole in zip(ids_of, filled, strict=True)
    ]


def added_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Tokens that were added to the vocabulary, with their ids; no pieces of words."""
    return {token.content: i for i, token in tokenizer.backend.get_added_tokens_decoder().items()}


def filler_id(tokenizer: Tokenizer, late: LateInteraction) -> int:
    """Id of the token that queries are filled up with. Raises `UserError` if there is none."""
    if late.filler is None:
        return tokenizer.filler_id
    token_id = tokenizer.backend.token_to_id(late.filler)
    if token_id is None:
        raise UserError(
            f"queries are filled up with the token {late.filler!r}, which the tokenizer does not"
            " have"
        )
    return token_id


def pool_tokens(vectors: np.ndarray, pooling: TokenPooling) -> np.ndarray:
    """Fewer vectors of a document, float32 [m, E]: the means of clusters of its token vectors.

    Hierarchical clustering by Ward's criterion over cosine distances, as in sentence-transformers.

    Args:
        vectors: of one document, [n, E], of length 1.
        pooling: how many there are afterwards.

    Raises:
        UserError: vectors that are not finite.
    """
    if not np.isfinite(vectors).all():
        raise UserError("token vectors that are not finite cannot be pooled")
    first, rest = np.split(np.asarray(vectors, np.float32), [pooling.protected])
    clusters = max(int(len(rest) // pooling.factor), 1)
    if clusters < len(rest):
        rest = _means(rest, clusters)
    pooled = np.concatenate([first, rest])
    if pooling.normalize:
        pooled /= np.maximum(np.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled


def _means(vectors: np.ndarray, clusters: int) -> np.ndarray:
    """Means of at most so many clusters of vectors [n, E], n above 1."""
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distances = squareform(np.clip(1 - vectors @ vectors.T, 0, 2), checks=False)
    labels = hierarchy.fcluster(hierarchy.linkage(distances, "ward"), clusters, "maxclust")
    _, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), vectors.shape[1]), np.float32)
    np.add.at(sums, members, vectors)
    return sums / counts[:, None].astype(np.float32)


_TOKENS = 2**16
"""Tokens of documents that are compared with a query at a time, about."""


def maxsim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """MaxSim of every query with every document: float32 [queries, documents].

    It is the sum over a query's vectors of the largest dot product with a vector of the document.

    Args:
        queries: [tokens, E] each, with any number of tokens.
        documents: the same; the score of a document without tokens is 0.

    Raises:
        UserError: an array of another number of dimensions.
    """
    for texts in (queries, documents):
        if any(np.ndim(x) != 2 for x in texts):
            raise UserError("maxsim compares lists of [tokens, E] arrays, one for each text")
    scores = np.zeros((len(queries), len(documents)), np.float32)
    lengths = np.array([len(document) for document in documents], np.int64)
    ends = np.cumsum(lengths)
    present = np.flatnonzero(lengths)
    # Blocks of documents that begin within the same so many tokens.
    of_block = (ends - lengths)[present] // _TOKENS
    for block in np.split(present, np.flatnonzero(np.diff(of_block)) + 1):
        if not len(block):
            continue
        flat = np.concatenate([documents[d] for d in block]).T
        starts = np.cumsum(lengths[block]) - lengths[block]
        for q, query in enumerate(queries):
            scores[q, block] = np.maximum.reduceat(query @ flat, starts, axis=1).sum(0)
    return scores


def mean_maxsim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """MaxSim divided by the query's number of vectors; arguments and result as of `maxsim`."""
    counts = np.array([max(len(query), 1) for query in queries], np.float32)
    return maxsim(queries, documents) / counts[:, None]


SIMILARITIES: dict[str, Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]] = {
    "MaxSim": maxsim,
    "MeanMaxSim": mean_maxsim,
}
"""Similarities of lists of token vectors by their names in `Pipeline.similarity`."""
