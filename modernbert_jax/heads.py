"""What stands on the encoder: heads, and pooling of documents within rows."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.model import ACTIVATION, Dropout, Encoder, Linear, norm


class PredictionHead(nn.Module):
    """Dense, activation, norm: in front of the decoder and of every classifier."""

    config: ModernBertConfig
    runtime: Runtime

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        dense = Linear(
            c.hidden_size,
            "in",
            config=c,
            dtype=jnp.dtype(self.runtime.dtype),
            use_bias=c.classifier_bias,
            name="dense",
        )
        return norm(c, "norm")(ACTIVATION[c.classifier_activation](dense(x)))


class MaskedLM(nn.Module):
    """The encoder with its masked-language-model head. Calling it gives logits."""

    config: ModernBertConfig
    runtime: Runtime = Runtime()

    def setup(self):
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

    def hidden(self, token_ids, segment_ids, positions, *, deterministic: bool = True):
        """Hidden states after the final norm, float32 [B, T, D]."""
        return self.encoder(token_ids, segment_ids, positions, deterministic=deterministic)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """The head on hidden states [..., D]: float32 [..., V]."""
        x = self.head(hidden).astype(self.runtime.dtype)
        return self.decoder(x, self.encoder.embeddings)


class Decoder(nn.Module):
    """From the head to the vocabulary: by the embedding table if tied, and a bias."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, x: jax.Array, embeddings: nn.Module) -> jax.Array:
        c = self.config
        if c.tie_word_embeddings:
            logits = embeddings.decode(x)
        else:
            logits = Linear(
                c.vocab_size, "final", config=c, dtype=x.dtype, use_bias=False, name="linear"
            )(x)
        logits = logits.astype(jnp.float32)
        if c.decoder_bias:
            logits += self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        return logits


class CausalLM(MaskedLM):
    """A decoder with its language-model head: logits of a token score the one that follows."""


class Classifier(nn.Module):
    """The encoder with a prediction head and a classifier, which work on tokens or on documents.

    Calling it classifies every token; for documents, `pool` what `hidden` gives, then `logits`.
    """

    config: ModernBertConfig
    runtime: Runtime = Runtime()
    labels: int = 2

    def setup(self):
        c = self.config
        self.encoder = Encoder(c, self.runtime)
        self.head = PredictionHead(c, self.runtime)
        self.dropout = Dropout(c.classifier_dropout)
        bias, dtype = c.classifier_bias or not c.causal, jnp.dtype(self.runtime.dtype)
        self.classifier = Linear(self.labels, "final", config=c, dtype=dtype, use_bias=bias)

    def __call__(
        self, token_ids, segment_ids, positions, *, dropout_ids=None, deterministic: bool = True
    ):
        """Logits of every token, float32 [B, T, labels]. Arguments as `Encoder.__call__`."""
        dropout = {"dropout_ids": dropout_ids, "deterministic": deterministic}
        return self.logits(self.hidden(token_ids, segment_ids, positions, **dropout), **dropout)

    def hidden(
        self, token_ids, segment_ids, positions, *, dropout_ids=None, deterministic: bool = True
    ):
        """Hidden states after the final norm, float32 [B, T, D]. As `Encoder.__call__`."""
        dropout = {"dropout_ids": dropout_ids, "deterministic": deterministic}
        return self.encoder(token_ids, segment_ids, positions, **dropout)

    def logits(
        self, x: jax.Array, *, dropout_ids: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """Head and classifier on tokens or pooled documents [..., D]: float32 [..., labels].

        `dropout_ids` [...] are those of the tokens or documents; see `Encoder.__call__`.
        """
        x = self.dropout(self.head(x), dropout_ids, deterministic)
        return self.classifier(x).astype(jnp.float32)


def document_pooling(config: ModernBertConfig) -> str:
    """How documents are pooled for a classifier: a decoder's last token has seen all others."""
    return "lasttoken" if config.causal else config.classifier_pooling


POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""The ways of `pool`, by their names in sentence-transformers."""


def pool(
    hidden: jax.Array,
    segment_ids: jax.Array,
    segments: int,
    how: str,
    skip: int | jax.Array = 0,
) -> jax.Array:
    """One vector for each document of each row.

    Args:
        hidden: [B, T, D].
        segment_ids: int32 [B, T]; 0 is padding.
        segments: the largest segment id that can occur.
        how: one of `POOLINGS`: "cls", the document's first token; "max"; "mean"; the sum over the
            root of the length; the mean with the position, from 1, as weight; the last token.
        skip: tokens at the start of every document that do not count.

    Returns:
        float32 [B, segments, D]; document s at index s - 1, zeros where there is none.
    """
    if how not in POOLINGS:
        raise ValueError(f"pooling is {how!r}; it must be one of {', '.join(POOLINGS)}")
    member = segment_ids[:, None] == jnp.arange(1, segments + 1)[None, :, None]  # [B, S, T]
    place = jnp.cumsum(member, -1)
    member &= place > skip
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
