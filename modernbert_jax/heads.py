"""What stands on the encoder: the masked-LM head, and pooling of documents within rows."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.model import ACTIVATION, Encoder, Linear, norm


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


def pool(hidden: jax.Array, segment_ids: jax.Array, segments: int, how: str) -> jax.Array:
    """One vector for each document of each row.

    Args:
        hidden: [B, T, D].
        segment_ids: int32 [B, T]; 0 is padding.
        segments: the largest segment id that can occur.
        how: "cls" (the document's first token), "mean" or "max" over its tokens.

    Returns:
        float32 [B, segments, D]; document s at index s - 1, zeros where there is none.
    """
    member = segment_ids[:, None] == jnp.arange(1, segments + 1)[None, :, None]  # [B, S, T]
    exists = member.any(-1, keepdims=True)
    hidden = hidden.astype(jnp.float32)
    if how == "mean":
        total = jnp.einsum("BST,BTD->BSD", member.astype(jnp.float32), hidden)
        return total / jnp.maximum(member.sum(-1, keepdims=True), 1)
    if how == "cls":
        first = jnp.take_along_axis(hidden, member.argmax(-1)[..., None], axis=1)
        return jnp.where(exists, first, 0.0)
    if how == "max":
        row, token = jnp.indices(segment_ids.shape)
        low = jnp.full((hidden.shape[0], segments + 1, hidden.shape[2]), -jnp.inf)
        top = low.at[row, segment_ids].max(hidden[row, token])[:, 1:]
        return jnp.where(exists, top, 0.0)
    raise ValueError(f"pooling is {how!r}; it must be cls, mean or max")
