"""Vocabulary transfer: initial embeddings of a new tokenizer from those of an old one.

A token of both vocabularies keeps its embedding. Any other token starts from the mean embedding of
the pieces into which the old tokenizer splits its text (Gee et al. 2022, "Fast Vocabulary
Transfer"). Tokens that are no text, such as half a character, start from random values.
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
"""Parameters with an entry per token: path -> axis of the tokens."""


class Match(NamedTuple):
    """Correspondence of a new vocabulary to an old one."""

    pieces: list[Sequence[int]]
    """For each new id the old ids to average; an empty entry starts from random values."""
    shared: int
    """Number of tokens that are in both vocabularies."""
    composed: int
    """Number of tokens made from the pieces of their text."""

    def __str__(self) -> str:
        fresh = sum(not ids for ids in self.pieces)
        return (
            f"{self.shared:,} tokens with the embedding of the same token, {self.composed:,} with"
            f" the mean of their pieces, {fresh:,} with random values"
        )


def match(old: Tokenizer, new: Tokenizer, size: int) -> Match:
    """Match the new vocabulary with the old one.

    Args:
        old: the tokenizer of the trained model.
        new: the tokenizer of the data.
        size: number of ids of the new model.
    """
    ids_of = old.backend.get_vocab(with_added_tokens=True)
    pieces: list[Sequence[int]] = [()] * size
    rest = []
    for id_ in range(min(size, new.vocab_size)):
        token = new.token(id_)
        if token in ids_of:
            pieces[id_] = (ids_of[token],)
        elif token is not None and id_ not in new.special_ids:
            text = new.decode([id_])
            if text and "\N{REPLACEMENT CHARACTER}" not in text:
                rest.append((id_, text))
    shared = sum(map(bool, pieces))
    for (id_, _), ids in zip(rest, old.encode_raw([text for _, text in rest]), strict=True):
        pieces[id_] = ids
    return Match(pieces, shared, sum(map(bool, pieces)) - shared)


def transfer(params: Any, fresh: Any, matched: Match) -> Any:
    """Replace the parameters of `TABLES` by those of the new vocabulary.

    Args:
        params: parameters for the old vocabulary, float32 numpy arrays.
        fresh: random initial parameters for the new vocabulary; kept for tokens without pieces.
        matched: the result of `match`.

    Returns:
        Parameters with as many tokens as `fresh` has.
    """
    transferred: dict[str, Any] = {}
    for path, leaf in names.flatten(params).items():
        if (axis := TABLES.get(path)) is not None:
            old, new = np.moveaxis(leaf, axis, 0), np.moveaxis(names.leaf(fresh, path), axis, 0)
            new = np.array(new, np.float32)
            for id_, pieces in enumerate(matched.pieces):
                if pieces:
                    new[id_] = old[list(pieces)].mean(0)
            leaf = np.moveaxis(new, 0, axis)
        names.put(transferred, path, leaf)
    return transferred
