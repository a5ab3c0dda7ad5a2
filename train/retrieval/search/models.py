"""Models with the options of a command."""

import dataclasses
from typing import Any

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.inference.text_model import Encoding

from ..encoding import PairScorer, TextEncoder
from ..late_encoding import TokenEncoder
from ..retriever import Retriever
from ..sparse_encoding import SparseTextEncoder
from .config import Encoders
from .reranking import Scorer, SimilarityScorer

RETRIEVERS: dict[str, type[TokenEncoder] | type[SparseTextEncoder]] = {
    "late-interaction": TokenEncoder,
    "sparse": SparseTextEncoder,
}
"""Models that represent texts otherwise than by one vector, by `Pipeline.kind`."""


def kind_of(model: str) -> str:
    """The `Pipeline.kind` of a model, or the head of one without modules. Raises `UserError`."""
    checkpoint = convert.load(convert.locate(model), later=True)
    return checkpoint.pipeline.kind if checkpoint.pipeline else checkpoint.head


def encoder_of(options: Encoders, model: str) -> Retriever:
    """A model that represents texts, with the options of a command. Raises `UserError`."""
    return _encoder(options, model, kind_of(model))


def _encoder(options: Encoders, model: str, kind: str) -> Retriever:
    """As `encoder_of`, of a model of a known kind."""

    def encoding(prompt: str | None, length: int | None) -> Encoding:
        width = options.dims or None
        return Encoding(pooling=options.pooling, prompt=prompt, max_length=length, width=width)

    sides = (
        encoding(options.query_prompt, options.query_length or options.max_length),
        encoding(options.corpus_prompt, options.max_length),
    )
    if kind in RETRIEVERS:
        if options.similarity is not None:
            raise UserError(f"{model}: is a {kind} model with a similarity of its own")
        sides = (encoding(options.query_prompt, options.query_length), sides[1])
        return RETRIEVERS[kind].load(model, *sides, **_computing(options))
    encoder = TextEncoder.load(model, *sides, **_computing(options))
    if options.similarity is None:
        return encoder
    return dataclasses.replace(encoder, similarity=options.similarity)


def model_of(options: Encoders, model: str) -> Retriever | PairScorer:
    """A reranker or a model that represents texts, whichever the files hold. Raises `UserError`."""
    kind = kind_of(model)
    if kind in ("reranker", "sequence_classification"):
        return _reranker(options, model)
    return _encoder(options, model, kind)


def scorer_of(options: Encoders, model: str) -> Scorer:
    """A reranker, or a late-interaction model as one, with the options of a command.

    Prompts, and the length of queries, are those of the model.

    Raises:
        UserError: no such model, or one that gives no single score for a pair of texts.
    """
    kind = kind_of(model)
    if kind != "late-interaction":
        return _reranker(options, model)
    own = Encoders(max_length=options.max_length, **_computing(options))
    return SimilarityScorer(_encoder(own, model, kind))


def _reranker(options: Encoders, model: str) -> PairScorer:
    return PairScorer.load(model, options.max_length, **_computing(options))


def _computing(options: Encoders) -> dict[str, Any]:
    """How a model computes."""
    return {name: getattr(options, name) for name in ("dtype", "weights", "batch_tokens")}
