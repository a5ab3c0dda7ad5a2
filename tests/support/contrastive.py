"""A contrastive objective: query and document of every pair against all others of the batch."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from modernbert_jax import heads, packing
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.model import Encoder
from modernbert_jax.sharding import constrain
from modernbert_jax.train import engine

DOCUMENTS = 8  # in a row: four queries, each followed by its document


class Pairs(NamedTuple):
    rows: packing.Rows  # [A, B, T]
    key: jax.Array  # [A], the same for all: dropout follows the example
    numbers: jax.Array  # [A, B, S], every document's own


class Towers(nn.Module):
    config: ModernBertConfig

    @nn.compact
    def __call__(self, ids, segments, positions, dropout_ids=None, deterministic=True):
        self.param("temperature", nn.initializers.constant(2.0), ())
        return Encoder(self.config, Runtime(), name="encoder")(
            ids, segments, positions, dropout_ids=dropout_ids, deterministic=deterministic
        )


@dataclasses.dataclass(frozen=True)
class Contrastive(engine.Objective):
    config: ModernBertConfig
    microbatches_: int = 2
    rows: int = 8  # in a batch
    seed: int = 0
    steps: int = 6
    coupled = True

    def init(self, key):
        return engine.init_params(Towers(self.config), key)

    def batch(self, step):
        rng = np.random.default_rng((self.seed, step))
        lengths = rng.integers(2, 8, (self.rows, DOCUMENTS))
        ids = [rng.integers(4, self.config.vocab_size, n.sum()) for n in lengths]
        return packing.Rows(*packing.layout(ids, lengths.tolist(), 64, 0))

    def microbatches(self, batch, key):
        a = self.microbatches_
        rows = jax.tree.map(lambda x: x.reshape(a, -1, x.shape[-1]), batch)
        rows = jax.tree.map(lambda x: constrain(x, None, "rows", "tokens"), rows)
        numbers = jnp.arange(self.rows * DOCUMENTS).reshape(a, -1, DOCUMENTS)
        return engine.Microbatches(Pairs(rows, jnp.broadcast_to(key, (a,)), numbers))

    def forward(self, params, microbatch):
        rows, key, numbers = microbatch
        first = jnp.take_along_axis(numbers, jnp.maximum(rows.segment_ids - 1, 0), axis=1)
        hidden = Towers(self.config).apply(
            {"params": params},
            *rows,
            dropout_ids=first * 64 + rows.positions,
            deterministic=False,
            rngs={"dropout": key},
        )
        return heads.pool(hidden, rows.segment_ids, DOCUMENTS, "mean")

    def loss(self, params, outputs, batch):
        x = outputs / jnp.linalg.norm(outputs, axis=-1, keepdims=True)
        x = x.reshape(-1, 2, x.shape[-1])
        scores = jnp.exp(params["temperature"]) * x[:, 0] @ x[:, 1].T
        right = jnp.diagonal(jax.nn.log_softmax(scores))
        accuracy = (scores.argmax(-1) == jnp.arange(len(scores))).sum(dtype=jnp.float32)
        return engine.Sums(-right.sum(), jnp.float32(len(scores)), {"accuracy": accuracy})
