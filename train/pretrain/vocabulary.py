"""Another tokenizer for a trained model: embeddings that start from those of the same text.

A token that both vocabularies spell alike keeps its embedding. Any other starts from the mean over
the pieces into which the old tokenizer cuts its text (Gee et al. 2022, "Fast Vocabulary Transfer").
What is no text of its own, such as half a character, starts from random values.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from modernbert_jax.convert import names
from modernbert_jax.tokenizer import Tokenizer

TABLES = {
    ("encoder", "embeddings", "embedding"): 0,
    ("decoder", "bias"): 0,
    ("decoder", "linear", "kernel"): 1,
}
"""Parameters with an entry for each token, and the axis of it."""


class Match(NamedTuple):
    """The old ids that each new one is the mean of; none starts from random values."""

    pieces: list[Sequence[int]]
    shared: int
    composed: int

    def __str__(self) -> str:
        fresh = sum(not ids for ids in self.pieces)
        return (
            f"{self.shared:,} tokens with the embedding of the same token, {self.composed:,} with"
            f" the mean of their pieces, {fresh:,} with random values"
        )


def match(old: Tokenizer, new: Tokenizer, size: int) -> Match:
    """Pieces for ids 0 to `size` - 1 of the new vocabulary."""
    spelled = old.backend.get_vocab(with_added_tokens=True)
    pieces: list[Sequence[int]] = [()] * size
    rest = []
    for id_ in range(min(size, new.vocab_size)):
        token = new.token(id_)
        if token in spelled:
            pieces[id_] = (spelled[token],)
        elif token is not None and id_ not in new.special_ids:
            text = new.decode([id_])
            if text and "\N{REPLACEMENT CHARACTER}" not in text:
                rest.append((id_, text))
    shared = sum(map(bool, pieces))
    for (id_, _), ids in zip(rest, old.encode_raw([text for _, text in rest]), strict=True):
        pieces[id_] = ids
    return Match(pieces, shared, sum(map(bool, pieces)) - shared)


def transfer(params: Any, fresh: Any, matched: Match) -> Any:
    """`params` with the tables of `TABLES` made anew, for as many tokens as `fresh` has.

    Args:
        params: of the old vocabulary, float32 numpy arrays.
        fresh: initial values for the new vocabulary; kept for tokens without pieces.
    """
    made: dict[str, Any] = {}
    for path, leaf in names.flatten(params).items():
        if (axis := TABLES.get(path)) is not None:
            old, new = np.moveaxis(leaf, axis, 0), np.moveaxis(names.leaf(fresh, path), axis, 0)
            new = np.array(new, np.float32)
            for id_, pieces in enumerate(matched.pieces):
                if pieces:
                    new[id_] = old[list(pieces)].mean(0)
            leaf = np.moveaxis(new, 0, axis)
        names.put(made, path, leaf)
    return made
