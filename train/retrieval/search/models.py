"""Models with the options of a command."""

import dataclasses

from modernbert_jax.inference.text_model import Encoding

from ..encoding import PairScorer, TextEncoder
from .config import Encoders


def encoder_of(options: Encoders, model: str) -> TextEncoder:
    """An embedding model with the options of a command. Raises `UserError`."""

    def encoding(prompt: str | None, length: int | None) -> Encoding:
        width = options.dims or None
        return Encoding(pooling=options.pooling, prompt=prompt, max_length=length, width=width)

    encoder = TextEncoder.load(
        model,
        encoding(options.query_prompt, options.query_length or options.max_length),
        encoding(options.corpus_prompt, options.max_length),
        dtype=options.dtype,
        batch_tokens=options.batch_tokens,
    )
    return dataclasses.replace(encoder, similarity=options.similarity or encoder.similarity)


def scorer_of(options: Encoders, model: str) -> PairScorer:
    """A reranker with the options of a command. Raises `UserError`."""
    return PairScorer.load(
        model, options.max_length, dtype=options.dtype, batch_tokens=options.batch_tokens
    )
