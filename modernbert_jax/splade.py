"""Sparse vectors (SPLADE; Formal et al. 2021): the masked-LM head's scores, pooled over documents.

A document's vector has a weight for every id of the vocabulary, and most are zero. The scores of
all tokens would be an array [tokens, V]; they are computed for a block of ids at a time instead, so
that memory holds [documents, V] and one block.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from modernbert_jax.heads import MaskedLM
from modernbert_jax.pipeline import SpladePooling
from modernbert_jax.sharding import RULES, constrain, free_axes

BLOCK = 2**23
"""Scores of a block on each device (32 MiB in float32), unless 128 ids have more."""

_LANES = 128
"""Ids of a block are a multiple of this, which fills the registers of a TPU."""


TILE = 8
"""Tokens of a document whose largest scores are taken together."""


class SparseVector(NamedTuple):
    """The weights of a text that are not zero."""

    indices: np.ndarray
    """Ids of the vocabulary in ascending order, int32 [n]."""
    values: np.ndarray
    """Their weights, float32 [n]."""


class SparseEncoder(MaskedLM):
    """The encoder with a masked-LM head. Calling it gives sparse vectors of documents."""

    pooling: SpladePooling = SpladePooling()

    def __call__(  # type: ignore[override]  # documents instead of tokens
        self,
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        segments: int = 64,
        dropout_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Vectors of packed rows, float32 [B, segments, V].

        Args:
            token_ids: int32 [B, T].
            segment_ids: int32 [B, T]; 0 is padding.
            positions: int32 [B, T].
            segments: the largest segment id that can occur.
            dropout_ids: as `Encoder.__call__`.
            deterministic: as `Encoder.__call__`.
        """
        hidden = self.encoder(
            token_ids,
            segment_ids,
            positions,
            dropout_ids=dropout_ids,
            deterministic=deterministic,
        )
        return self.vectors(hidden, segment_ids, segments)

    def vectors(self, hidden: jax.Array, segment_ids: jax.Array, segments: int) -> jax.Array:
        """Vectors of documents from hidden states [B, T, D]: float32 [B, segments, V]."""
        if self.is_initializing():
            self.logits(hidden[:, :1])  # creates the parameters of the decoder
        x = self.head(hidden).astype(self.runtime.dtype)
        table, bias = self.decoder.weights(self.encoder.embeddings)
        return pooled_scores(x, table, bias, segment_ids, segments, self.pooling)


def pooled_scores(
    x: jax.Array,
    table: jax.Array,
    bias: jax.Array,
    segment_ids: jax.typing.ArrayLike,
    segments: int,
    pooling: SpladePooling,
) -> jax.Array:
    """Pool the scores x @ table.T + bias of the tokens of each document. Differentiable once.

    All tokens of a document count, special ones and those of a prompt too, as in
    sentence-transformers. Of tokens with the same largest score the first one gets the gradient.

    Args:
        x: features of tokens [B, T, D].
        table: weights of the vocabulary [V, D].
        bias: float32 [V].
        segment_ids: int32 [B, T]; 0 is padding, each document one run of a positive id.
        segments: the largest segment id that can occur.
        pooling: how scores become weights.

    Returns:
        float32 [B, segments, V]; document s at index s - 1, zeros where there is none.
    """
    x = constrain(x, "rows", None, None)
    table = constrain(table, None, None)
    segment_ids = constrain(jnp.asarray(segment_ids), "rows", None)
    pooled = _pooled(x, table, bias, segment_ids, segments, pooling)
    # The largest score has the largest weight, so the activation can follow the maximum.
    weights = _activation(pooling)(pooled) if pooling.strategy == "max" else pooled
    return constrain(weights, "rows", None, None)


def largest(vectors: jax.Array, count: int) -> jax.Array:
    """The largest weights of vectors [..., V]: ids and weights, float32 [..., 2, count].

    Ids are exact in float32 up to 2**24. Of equal weights those with smaller ids are taken.
    """
    values, ids = lax.top_k(vectors, count)
    return jnp.stack([ids.astype(jnp.float32), values], -2)


def sparse(vector: np.ndarray) -> SparseVector:
    """The weights that are not zero of a vector [V], or of its `largest` ones [2, count]."""
    if vector.ndim == 1:
        indices = np.flatnonzero(vector)
        return SparseVector(indices.astype(np.int32), vector[indices].astype(np.float32))
    ids, values = vector[:, vector[1] != 0]
    order = np.argsort(ids)
    return SparseVector(ids[order].astype(np.int32), values[order].astype(np.float32))


def _activation(pooling: SpladePooling) -> Any:
    def activate(scores: jax.Array) -> jax.Array:
        weights = jnp.log1p(jax.nn.relu(scores))
        return jnp.log1p(weights) if pooling.activation == "log1p_relu" else weights

    return activate


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _pooled(
    x: jax.Array,
    table: jax.Array,
    bias: jax.Array,
    segment_ids: jax.Array,
    segments: int,
    pooling: SpladePooling,
) -> jax.Array:
    """The largest scores of documents, or the sums of weights: float32 [B, S, V]."""
    return _computed(x, table, bias, segment_ids, segments, pooling, False)[0]


def _computed(
    x: jax.Array,
    table: jax.Array,
    bias: jax.Array,
    segment_ids: jax.Array,
    segments: int,
    pooling: SpladePooling,
    winners: bool,
) -> tuple[jax.Array, ...]:
    """The pooled scores, and with `winners` the places of the tokens that have them, int32."""
    shape = (len(x), segments, len(table))
    if pooling.strategy == "sum":
        blocks = _Blocks.of(x, table, bias)
        member = _member(segment_ids, segments).astype(jnp.float32)
    else:
        tiles = _Tiles.of(segment_ids, segments)
        blocks = _Blocks.of(tiles.laid_out(x), table, bias)

    def write(i: jax.Array, every: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        own: tuple[jax.Array, ...]
        if pooling.strategy == "sum":
            weights = _activation(pooling)(blocks.scores(i))
            own = (jnp.einsum("BST,BTV->BSV", member, weights, precision=lax.Precision.HIGHEST),)
        else:
            own = tiles.largest(blocks.scores(i), winners)
        return tuple(
            lax.dynamic_update_slice_in_dim(all_, part, blocks.first(i), 2)
            for all_, part in zip(every, own, strict=True)
        )

    kept = (jnp.float32, jnp.int32) if winners and pooling.strategy == "max" else (jnp.float32,)
    empty = tuple(constrain(jnp.zeros(shape, dtype), "rows", None, None) for dtype in kept)
    return lax.fori_loop(0, blocks.number, write, empty)


def _pooled_forward(x, table, bias, segment_ids, segments, pooling):
    pooled, *winners = _computed(x, table, bias, segment_ids, segments, pooling, True)
    return pooled, (x, table, bias, segment_ids, winners)


def _pooled_backward(segments, pooling, kept, of_pooled):
    x, table, bias, segment_ids, winners = kept
    blocks = _Blocks.of(x, table, bias)
    document = jnp.maximum(segment_ids - 1, 0)[..., None]
    exists, place = (segment_ids > 0)[..., None], jnp.arange(x.shape[1])[:, None]

    def of_tokens(every: jax.Array, i: jax.Array) -> jax.Array:
        """A block of an array [B, S, V] at each token's document: [B, T, ids]."""
        own = lax.dynamic_slice_in_dim(every, blocks.first(i), blocks.size, 2)
        return jnp.take_along_axis(own, document, 1)

    def add(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        of_x, of_table, of_bias = sums
        grad = jnp.where(exists & blocks.new(i), of_tokens(of_pooled, i), 0.0)
        if winners:
            grad = jnp.where(of_tokens(winners[0], i) == place, grad, 0.0)
        else:
            _, pull_back = jax.vjp(_activation(pooling), blocks.scores(i))
            (grad,) = pull_back(grad)
        first, own = blocks.first(i), grad.astype(x.dtype)
        product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        of_x += product("BTV,VD->BTD", own, blocks.weights(i))
        of_table = _added(of_table, product("BTV,BTD->VD", own, x), first)
        return of_x, of_table, _added(of_bias, grad.sum((0, 1)), first)

    start = tuple(jnp.zeros(a.shape, jnp.float32) for a in (x, table, bias))
    grads = lax.fori_loop(0, blocks.number, add, start)
    return *(g.astype(a.dtype) for g, a in zip(grads, kept[:3], strict=True)), None


_pooled.defvjp(_pooled_forward, _pooled_backward)


class _Blocks(NamedTuple):
    """Blocks of ids, all of one size; the last one repeats ids of the one before it."""

    x: jax.Array
    table: jax.Array
    bias: jax.Array
    size: int
    """Ids in a block."""
    number: int

    @classmethod
    def of(cls, x: jax.Array, table: jax.Array, bias: jax.Array) -> "_Blocks":
        """Blocks whose scores have a size that suits a device."""
        sizes = free_axes()
        tokens = math.prod(x.shape[:2])
        tokens //= math.prod(sizes.get(axis, 1) for axis in RULES.rows)
        size = max(BLOCK // max(tokens, 1) // _LANES, 1) * _LANES
        size = min(size, len(table))
        return cls(x, table, bias, size, -(-len(table) // size))

    def first(self, i: jax.Array) -> jax.Array:
        """The first id of a block."""
        return jnp.minimum(i * self.size, len(self.table) - self.size)

    def new(self, i: jax.Array) -> jax.Array:
        """Ids of a block that are in no block before it, bool [ids]."""
        return self.first(i) + jnp.arange(self.size) >= i * self.size

    def weights(self, i: jax.Array) -> jax.Array:
        """Weights of a block's ids [ids, D]."""
        own = lax.dynamic_slice_in_dim(self.table, self.first(i), self.size)
        return own.astype(self.x.dtype)

    def scores(self, i: jax.Array) -> jax.Array:
        """Scores of a block's ids, float32 [B, T, ids]."""
        products = jnp.einsum(
            "BTD,VD->BTV", self.x, self.weights(i), preferred_element_type=jnp.float32
        )
        return products + lax.dynamic_slice_in_dim(self.bias, self.first(i), self.size)


class _Tiles(NamedTuple):
    """Tokens of rows in tiles of `TILE`, each of one document, so that most of a maximum is taken
    within tiles. A document fills its last tile up with padding."""

    token: jax.Array
    """Place of the token of each slot, int32 [B, N, TILE]."""
    exists: jax.Array
    """Whether the slot holds a token of a document, bool [B, N, TILE]."""
    document: jax.Array
    """Number of a tile's document from 0, int32 [B, N]."""
    last: jax.Array
    """A document's last tile, int32 [B, S]; -1 for those that do not exist."""

    @classmethod
    def of(cls, segment_ids: jax.Array, segments: int) -> "_Tiles":
        """Tiles of rows; there are enough for any `segments` documents."""
        member = _member(segment_ids, segments)
        start, length = member.argmax(-1), member.sum(-1)  # [B, S]
        number = -(-length // TILE)
        end = jnp.cumsum(number, -1)
        tile = jnp.arange(-(-segment_ids.shape[1] // TILE) + segments)
        document = (tile[:, None] >= end[:, None]).sum(-1)  # [B, N]; S where there is none

        def of_tile(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(x, jnp.minimum(document, segments - 1), 1)

        first = (tile - of_tile(end - number)) * TILE
        place = first[..., None] + jnp.arange(TILE)
        exists = (place < of_tile(length)[..., None]) & (document < segments)[..., None]
        token = jnp.where(exists, of_tile(start)[..., None] + place, 0)
        return cls(token, exists, document, jnp.where(length > 0, end - 1, -1))

    def laid_out(self, x: jax.Array) -> jax.Array:
        """Features of tokens [B, T, D] in the order of the slots: [B, N * TILE, D]."""
        return jnp.take_along_axis(x, self.token.reshape(len(x), -1, 1), 1)

    def largest(self, scores: jax.Array, winners: bool) -> tuple[jax.Array, ...]:
        """The largest scores of documents, and with `winners` the places of their tokens.

        Args:
            scores: of the slots, [B, N * TILE, V].
            winners: whether places are needed.

        Returns:
            Scores [B, S, V], minus infinity for documents that do not exist, and int32 places.
        """
        scores = scores.reshape(*self.token.shape, -1)
        scores = jnp.where(self.exists[..., None], scores, -jnp.inf)
        best: tuple[jax.Array, ...] = (scores.max(2),)
        if winners:
            best += (self.token[..., :1] + scores.argmax(2).astype(jnp.int32),)

        def double(i: jax.Array, best: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            """Maxima over twice as many tiles. A tile may be taken twice, which changes nothing."""
            before = tuple(jnp.roll(x, 1 << i, 1) for x in best)
            wins = before[0] > best[0]
            if winners:  # of equal scores the first
                wins |= (before[0] == best[0]) & (before[1] < best[1])
            wins &= (self.document == jnp.roll(self.document, 1 << i, 1))[..., None]
            return tuple(jnp.where(wins, x, y) for x, y in zip(before, best, strict=True))

        doublings = (self.document.shape[1] - 1).bit_length()
        best = lax.fori_loop(0, doublings, double, best)
        last = jnp.maximum(self.last, 0)[..., None]
        values, *places = (jnp.take_along_axis(x, last, 1) for x in best)
        return jnp.where(self.last[..., None] < 0, -jnp.inf, values), *places


def _member(segment_ids: jax.Array, segments: int) -> jax.Array:
    """Whether a token belongs to a document, bool [B, S, T]."""
    return segment_ids[:, None] == jnp.arange(1, segments + 1)[None, :, None]


def _added(total: jax.Array, part: jax.Array, first: jax.Array) -> jax.Array:
    """`total` with a part added from an index on."""
    own = lax.dynamic_slice_in_dim(total, first, len(part))
    return lax.dynamic_update_slice_in_dim(total, own + part, first, 0)
