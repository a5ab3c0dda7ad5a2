"""Heads on the encoder, one table of them, and pooling of documents within rows."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.initializers import truncated_normal
from modernbert_jax.model import ACTIVATION, Dropout, Embeddings, Encoder, Linear, norm
from modernbert_jax.quantization import Int8


class PredictionHead(nn.Module):
    """Dense layer, activation and norm, before the decoder and before every classifier."""

    config: ModernBertConfig
    runtime: Runtime

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of x [..., D], in the same shape."""
        c = self.config
        dense = Linear(
            c.hidden_size,
            truncated_normal(c, "in"),
            dtype=jnp.dtype(self.runtime.dtype),
            use_bias=c.classifier_bias,
            name="dense",
        )
        return norm(c, "norm")(ACTIVATION[c.classifier_activation](dense(x)))


class Decoder(nn.Module):
    """Product with the embedding table if tied, else with an own kernel, and a bias."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, x: jax.Array, embeddings: Embeddings) -> jax.Array:
        """Logits of x [..., D]: float32 [..., V]."""
        c = self.config
        if c.tie_word_embeddings:
            logits = embeddings.decode(x)
        else:
            kernel_init = truncated_normal(c, "final")
            logits = Linear(c.vocab_size, kernel_init, x.dtype, use_bias=False, name="linear")(x)
        logits = logits.astype(jnp.float32)
        if c.decoder_bias:
            logits += self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        return logits

    def weights(self, embeddings: Embeddings) -> tuple[jax.Array, jax.Array]:
        """What initialised logits are computed with: a table [V, D] and a bias, float32 [V]."""
        own = self.variables.get("params", {})
        tied = self.config.tie_word_embeddings
        table = embeddings.embedding if tied else own["linear"]["kernel"].T
        if isinstance(table, Int8):
            table = table.astype(jnp.float32)
        return table, own.get("bias", jnp.zeros(len(table), jnp.float32))


class LanguageModel(nn.Module):
    """The encoder with a language-model head. Calling it gives logits of every token."""

    config: ModernBertConfig
    runtime: Runtime = Runtime()

    def setup(self) -> None:
        c = self.config
        self.encoder = Encoder(c, self.runtime)
        self.head = PredictionHead(c, self.runtime)
        self.decoder = Decoder(c)

    def __call__(
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits of every token, float32 [B, T, V]. Arguments as `Encoder.__call__`."""
        return self.logits(
            self.hidden(token_ids, segment_ids, positions, deterministic=deterministic)
        )

    def hidden(
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Hidden states after the final norm, float32 [B, T, D]."""
        return self.encoder(token_ids, segment_ids, positions, deterministic=deterministic)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits of hidden states [..., D]: float32 [..., V]."""
        x = self.head(hidden).astype(self.runtime.dtype)
        return self.decoder(x, self.encoder.embeddings)


class MaskedLM(LanguageModel):
    """The encoder with a masked-language-model head: logits of a token score that token."""


class CausalLM(LanguageModel):
    """A decoder with its language-model head: logits of a token score the next one."""


class Classifier(nn.Module):
    """The encoder with a prediction head and a classifier, of tokens or of documents.

    Calling it classifies every token. For documents, call `hidden`, `pool` and `logits`.
    """

    config: ModernBertConfig
    runtime: Runtime = Runtime()
    labels: int = 2

    def setup(self) -> None:
        c = self.config
        self.encoder = Encoder(c, self.runtime)
        self.head = PredictionHead(c, self.runtime)
        self.dropout = Dropout(c.classifier_dropout)
        self.classifier = Linear(
            self.labels,
            truncated_normal(c, "final"),
            dtype=jnp.dtype(self.runtime.dtype),
            use_bias=c.classifier_bias or not c.causal,
        )

    def __call__(
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        dropout_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits of every token, float32 [B, T, labels]. Arguments as `Encoder.__call__`."""
        x = self.hidden(
            token_ids,
            segment_ids,
            positions,
            dropout_ids=dropout_ids,
            deterministic=deterministic,
        )
        return self.logits(x, dropout_ids=dropout_ids, deterministic=deterministic)

    def hidden(
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        dropout_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Hidden states after the final norm, float32 [B, T, D]. As `Encoder.__call__`."""
        return self.encoder(
            token_ids,
            segment_ids,
            positions,
            dropout_ids=dropout_ids,
            deterministic=deterministic,
        )

    def logits(
        self, x: jax.Array, *, dropout_ids: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """Logits of tokens or pooled documents [..., D]: float32 [..., labels].

        `dropout_ids` [...] are those of the tokens or documents; see `Encoder.__call__`.
        """
        x = self.dropout(self.head(x), dropout_ids, deterministic)
        return self.classifier(x).astype(jnp.float32)


class Head(NamedTuple):
    """A kind of head."""

    build: Callable[[ModernBertConfig, Runtime, int], nn.Module]
    """The module for an architecture, a runtime and the number of a classifier's outputs."""
    output: Literal["hidden", "vocabulary", "document", "token", "choice"]
    """Result of the model: hidden states, scores of the vocabulary at every token, or outputs of a
    classifier for every document, every token, or every choice of a question."""


HEADS: dict[str, Head] = {
    "none": Head(lambda config, runtime, _: Encoder(config, runtime), "hidden"),
    "masked_lm": Head(lambda config, runtime, _: MaskedLM(config, runtime), "vocabulary"),
    "causal_lm": Head(lambda config, runtime, _: CausalLM(config, runtime), "vocabulary"),
    "sequence_classification": Head(Classifier, "document"),
    "token_classification": Head(Classifier, "token"),
    "question_answering": Head(Classifier, "token"),
    "multiple_choice": Head(Classifier, "choice"),
}
"""Heads by their names in a checkpoint."""


def encoder_of(params: dict[str, Any]) -> dict[str, Any]:
    """The encoder's parameters within those of any model."""
    return params.get("encoder", params)


def document_pooling(config: ModernBertConfig) -> str:
    """Pooling of documents for a classifier; in a decoder only the last token attends to all."""
    return "lasttoken" if config.causal else config.classifier_pooling


POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Ways of pooling, by their names in sentence-transformers."""


def pool(
    hidden: jax.Array,
    segment_ids: jax.typing.ArrayLike,
    segments: int,
    how: str,
    skip: int | jax.Array = 0,
) -> jax.Array:
    """Pool the hidden states of each document of each row.

    Args:
        hidden: [B, T, D].
        segment_ids: int32 [B, T]; 0 is padding.
        segments: the largest segment id that can occur.
        how: one of `POOLINGS`: the document's first token; the maximum; the mean; the sum divided
            by the root of the length; the mean weighted by position, from 1; the last token.
        skip: number of tokens at the start of documents that are left out: one for all, or one
            for each, int32 [B, segments].

    Returns:
        float32 [B, segments, D]; document s at index s - 1, zeros where there is none.
    """
    if how not in POOLINGS:
        raise ValueError(f"pooling is {how!r}; it must be one of {', '.join(POOLINGS)}")
    segment_ids = jnp.asarray(segment_ids)
    member = segment_ids[:, None] == jnp.arange(1, segments + 1)[None, :, None]  # [B, S, T]
    place = jnp.cumsum(member, -1)
    member &= place > jnp.asarray(skip)[..., None]
    exists = member.any(-1, keepdims=True)
    hidden = hidden.astype(jnp.float32)
    if how in ("cls", "lasttoken"):
        last = hidden.shape[1] - 1
        index = member.argmax(-1) if how == "cls" else last - member[..., ::-1].argmax(-1)
        return jnp.where(exists, jnp.take_along_axis(hidden, index[..., None], axis=1), 0.0)
    if how == "max":
        row, token = jnp.indices(segment_ids.shape)
        low = jnp.full((hidden.shape[0], segments + 1, hidden.shape[2]), -jnp.inf)
        counted = jnp.where(member.any(1), segment_ids, 0)
        top = low.at[row, counted].max(hidden[row, token])[:, 1:]
        return jnp.where(exists, top, 0.0)
    weights = (member * (place if how == "weightedmean" else 1)).astype(jnp.float32)
    total = jnp.einsum("BST,BTD->BSD", weights, hidden)
    count = jnp.maximum(weights.sum(-1, keepdims=True), 1.0)
    return total / (jnp.sqrt(count) if how == "mean_sqrt_len_tokens" else count)
