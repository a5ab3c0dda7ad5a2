"""Late interaction (Khattab and Zaharia 2020): texts as many vectors, compared token by token.

Queries and documents differ in their prefix, and queries may be filled up with mask tokens that
see the text and are not seen by it. All as in PyLate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import LateInteraction
from modernbert_jax.tokenizer import Tokenizer


class Tokens(NamedTuple):
    """A text as it goes in."""

    ids: list[int]
    visible: int
    """How many of the first tokens are seen by others."""
    counted: np.ndarray
    """Boolean, one per token: whether its vector is part of the result."""


def tokenize(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    late: LateInteraction,
    *,
    is_query: bool,
    longest: int,
) -> list[Tokens]:
    """Texts as queries or documents.

    Spaces around a text are cut off. A prefix that is a token of its own comes second, behind the
    token that begins every text; any other is put in front of the text.

    Args:
        texts: any number.
        tokenizer: of the model.
        late: how the model treats queries and documents.
        is_query: which of the two these are.
        longest: in tokens, where `late` has no length.

    Raises:
        UserError: queries are to be filled up, and the tokenizer has no token for that.
    """
    prefix = late.query_prefix if is_query else late.document_prefix
    length = (late.query_length if is_query else late.document_length) or longest
    inserted = tokenizer.backend.token_to_id(prefix) if prefix else None
    texts = [text.strip() for text in texts]
    if inserted is None:
        found = tokenizer.encode([prefix + text for text in texts], max_length=length)
    else:
        found = tokenizer.encode(texts, max_length=length - 1)
        found = [[*ids[:1], inserted, *ids[1:]] for ids in found]
    if not is_query:
        known = (tokenizer.backend.token_to_id(word) for word in late.skiplist)
        skipped = [i for i in known if i is not None]
        return [Tokens(ids, len(ids), ~np.isin(ids, skipped)) for ids in found]
    if not late.expand:
        return [Tokens(ids, len(ids), np.ones(len(ids), bool)) for ids in found]
    filler = tokenizer.filler_id
    filled = [ids + [filler] * (length - len(ids)) for ids in found]
    return [
        Tokens(whole, len(whole if late.attend else ids), np.ones(len(whole), bool))
        for ids, whole in zip(found, filled, strict=True)
    ]


def maxsim(queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of every query with every document: float32 [queries, documents].

    For each vector of the query the best dot product with one of the document's, added up.

    Args:
        queries: [tokens, E] each, of any number of tokens.
        documents: the same; a document without tokens scores 0.
    """
    for texts in (queries, documents):
        if any(np.ndim(x) != 2 for x in texts):
            raise UserError("maxsim compares lists of [tokens, E] arrays, one for each text")
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for d, document in enumerate(documents):
        for q, query in enumerate(queries):
            if len(document):
                scores[q, d] = (query @ document.T).max(-1).sum()
    return scores
