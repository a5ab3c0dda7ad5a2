"""`Embedder`: the Flax module of the encoder with the steps of a `Pipeline` after it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from modernbert_jax import norms
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.heads import pool
from modernbert_jax.initializers import uniform
from modernbert_jax.model import Encoder, Linear
from modernbert_jax.pipeline import (
    ACTIVATIONS,
    LAYER_NORM_EPSILON,
    Dense,
    Layer,
    Normalize,
    Pooling,
    Step,
)


class Projection(nn.Module):
    """The layer that a `Dense` describes, in float32."""

    layer: Dense

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., in_features] to [..., out_features]."""
        d = self.layer
        init = uniform(d.in_features**-0.5)  # PyTorch's default for linear layers
        y = Linear(d.out_features, init, jnp.float32, use_bias=d.bias, name="linear")(x)
        y = ACTIVATIONS[d.activation](y)
        if d.residual and d.in_features != d.out_features:
            x = Linear(d.out_features, init, jnp.float32, use_bias=False, name="residual")(x)
        return y + x if d.residual else y


def _module(layer: Layer) -> nn.Module:
    """The module of a step with parameters, in float32."""
    if isinstance(layer, Dense):
        return Projection(layer, name=layer.name)
    return norms.LayerNorm(epsilon=LAYER_NORM_EPSILON, name=layer.name)


class Embedder(nn.Module):
    """The encoder with the steps of a pipeline: vectors of documents, or of tokens."""

    config: ModernBertConfig
    runtime: Runtime = Runtime()
    steps: tuple[Step, ...] = ()

    def setup(self) -> None:
        self.encoder = Encoder(self.config, self.runtime)
        self.layers = [_module(step) for step in self.steps if isinstance(step, Layer)]

    def __call__(
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        segments: int = 64,
        visible: jax.Array | None = None,
        dropout_ids: jax.Array | None = None,
        deterministic: bool = True,
        skip: int | jax.Array = 0,
        normalize: bool = True,
    ) -> jax.Array:
        """Vectors of packed rows; arguments as `Encoder.__call__` and `vectors`."""
        hidden = self.encoder(
            token_ids,
            segment_ids,
            positions,
            visible=visible,
            dropout_ids=dropout_ids,
            deterministic=deterministic,
        )
        return self.vectors(hidden, segment_ids, segments, skip=skip, normalize=normalize)

    def vectors(
        self,
        hidden: jax.Array,
        segment_ids: jax.Array,
        segments: int,
        *,
        skip: int | jax.Array = 0,
        normalize: bool = True,
    ) -> jax.Array:
        """All steps in float32: documents' vectors [B, segments, E], or tokens' [B, T, E].

        Args:
            hidden: hidden states of the encoder [B, T, D].
            segment_ids: int32 [B, T]; 0 is padding.
            segments: the largest segment id that can occur.
            skip: length of the prompt in tokens, for pooling that leaves it out: one for all
                documents, or one for each, int32 [B, segments].
            normalize: False leaves out the steps that normalise.
        """
        x, layers = hidden.astype(jnp.float32), iter(self.layers)
        for step in self.steps:
            if isinstance(step, Layer):
                x = next(layers)(x)
            elif isinstance(step, Normalize) and normalize:
                x /= _lengths(x)
            elif isinstance(step, Pooling):
                left_out = 0 if step.include_prompt else skip
                pooled = [pool(x, segment_ids, segments, mode, left_out) for mode in step.modes]
                x = jnp.concatenate(pooled, axis=-1)
        return x


def _lengths(x: jax.Array) -> jax.Array:
    """Lengths of vectors [..., E]: [..., 1]; 1 for zero vectors, whose norm has no gradient."""
    squares = (x * x).sum(-1, keepdims=True)
    return jnp.maximum(jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 1e-12)  # as PyTorch


def embedder_params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters of `Embedder` from those of a checkpoint, which may be a bare encoder."""
    return params if "encoder" in params else {"encoder": params}
