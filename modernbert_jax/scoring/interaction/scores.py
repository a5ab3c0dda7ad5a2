"""MaxSim of packed rows: arguments, numbering, meshes and the choice of the implementation.

An implementation computes on the places of texts in their rows, `numbering.Texts`:

    scores(q [N, E], places [N], d [rows, T, E], segment_ids [rows, T], queries, texts)
        -> float32 [rows, S, queries]       all documents with all queries
    paired(q, places, d, segment_ids, own [rows, S], queries, longest)
        -> float32 [rows, S]                each document with the query at the place `own`

where `places` has the place of each query token's text, -1 for tokens that do not count, and no
query spans more than `longest` tokens. Both are differentiable in q and d. On a mesh every device
has its own rows of documents and all queries.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError
from modernbert_jax.sharding import RULES, free_axes

from . import choice, numbering
from .numbering import Texts


def maxsim(
    q: jax.Array,
    q_segments: jax.Array,
    d: jax.Array,
    d_segments: jax.Array,
    implementation: str = "auto",
    *,
    queries: Texts | None = None,
    documents: Texts | None = None,
    mean: bool = False,
) -> jax.Array:
    """MaxSim of every query with every document: the sum of the largest product of each token.

    Of equal products the first token of the document has the gradient, as with `argmax`. Memory is
    linear in the number of tokens. Under a mesh (`jax.set_mesh`) rows of documents are divided as
    rows of a batch are.

    Args:
        q: vectors of the queries' tokens in packed rows, [rows, T, E], float32 or bfloat16.
        q_segments: int32 [rows, T]. Tokens of query s of a row have the id s, in order; 0 is for
            padding and for tokens that do not count, also within a query.
        d, d_segments: the same of the documents; other numbers of rows and tokens.
        implementation: a key of `IMPLEMENTATIONS`, or "auto".
        queries, documents: where the texts are in the result. None is `reading_order`, for which
            the ids must be known: not in a traced program.
        mean: whether to divide by the number of the query's tokens (MeanMaxSim).

    Returns:
        float32 [queries, documents]; 0 for a query or document without counted tokens, and for a
        number that no text has.

    Raises:
        UserError: shapes that do not fit together, an unknown implementation or one that does not
            support the call, or rows that the mesh does not divide evenly.
    """
    queries, documents = _checked(q, q_segments, d, d_segments, queries, documents)
    own = _Arguments(q, q_segments, d, d_segments, queries.numbers.shape, documents.numbers.shape)
    by_place = own.compute("scores", implementation, ())
    if mean:
        by_place = by_place / jnp.maximum(own.query_lengths, 1)
    flat = by_place.reshape(-1, by_place.shape[-1])
    by_document = numbering.taken(flat, documents.places, documents.flat)
    return numbering.taken(by_document.T, queries.places, queries.flat)


def paired_maxsim(
    q: jax.Array,
    q_segments: jax.Array,
    d: jax.Array,
    d_segments: jax.Array,
    query_of: jax.Array,
    implementation: str = "auto",
    *,
    queries: Texts | None = None,
    documents: Texts | None = None,
    mean: bool = False,
) -> jax.Array:
    """MaxSim of each document with one query, as in reranking: work is linear in the pairs.

    On a TPU that holds where queries have about the order of their documents.

    Args:
        query_of: number of the query of each document, int32 [documents]; -1 is none.
        q, q_segments, d, d_segments, implementation, queries, documents, mean: as `maxsim`.

    Returns:
        float32 [documents]; 0 where `maxsim` has 0, and for a document without a query.

    Raises:
        UserError: as `maxsim`.
    """
    queries, documents = _checked(q, q_segments, d, d_segments, queries, documents)
    own = _Arguments(q, q_segments, d, d_segments, queries.numbers.shape, documents.numbers.shape)
    query_of = jnp.asarray(query_of, jnp.int32)
    if query_of.shape != (documents.total,):
        raise UserError(
            f"maxsim: query_of has shape {query_of.shape}; there are {documents.total} documents"
        )
    # The place of the query at each document's place, -1 where there is none.
    query = query_of.at[documents.flat].get(mode="fill", fill_value=-1)
    query = jnp.where(query < 0, queries.total, query)
    place = jnp.asarray(queries.places).at[query].get(mode="fill", fill_value=own.queries)
    place = jnp.where(place < own.queries, place, -1).reshape(documents.numbers.shape)
    by_place = own.compute("paired", implementation, (place,))
    if mean:
        by_place = by_place / jnp.maximum(own.query_lengths[place], 1)
    return numbering.taken(by_place.reshape(-1), documents.places, documents.flat)


class _Arguments:
    """Arguments of an implementation."""

    def __init__(self, q, q_segments, d, d_segments, query_places, document_places):
        self.queries = math.prod(query_places)
        self.texts, self.longest = document_places[1], q.shape[1]
        places = numbering.token_places(q_segments, query_places[1])
        self.arrays = (q.reshape(-1, q.shape[-1]), places.reshape(-1), d, d_segments)
        self._query_spans = functools.partial(numbering.spans, q_segments, query_places[1])

    @property
    def query_lengths(self) -> jax.Array:
        """Number of counted tokens of the query at each place, [queries]."""
        return self._query_spans().counted.reshape(-1)

    def compute(self, name: str, implementation: str, more: tuple[jax.Array, ...]) -> jax.Array:
        """Call `scores` or `paired` of an implementation on each device's rows of documents."""
        q, places, d, segments = self.arrays
        pieces, over_rows = _over_rows(len(d))
        call = choice.Call.traced(
            dtype=str(q.dtype),
            width=q.shape[1],
            query_tokens=len(q),
            queries=self.queries,
            rows=len(d) // pieces,
            length=d.shape[1],
            texts=self.texts,
            paired=name == "paired",
        )
        module = choice.module_of(choice.choose(implementation, call))
        sizes = (self.queries, self.longest if name == "paired" else self.texts)

        def on_one_device(q, places, *rows):
            return getattr(module, name)(q, places, *rows, *sizes)

        return over_rows(on_one_device)(q, places, d, segments, *more)


def _over_rows(rows: int) -> tuple[int, Callable[[Callable[..., jax.Array]], Callable[..., Any]]]:
    """Pieces that the mesh divides rows into, and what runs a function on each device's own.

    The first two arguments of the function are whole on every device.
    """
    sizes = free_axes()
    axes = tuple(axis for axis in RULES.rows if axis in sizes)
    pieces = math.prod(sizes[axis] for axis in axes)
    if rows % pieces:
        named = " and ".join(axis for axis in axes if sizes[axis] > 1)
        raise UserError(
            f"maxsim: {rows} rows of documents cannot be divided into {pieces} equal pieces; change"
            f" their number or the size of the mesh over {named}"
        )
    if math.prod(sizes.values()) == 1:
        return 1, lambda function: function

    def mapped(function: Callable[..., jax.Array]) -> Callable[..., Any]:
        def call(q, places, *by_row):
            return jax.shard_map(
                function,
                in_specs=(P(), P(), *(P(axes) for _ in by_row)),
                out_specs=P(axes),
                axis_names=set(sizes),
                check_vma=False,
            )(q, places, *by_row)

        return call

    return pieces, mapped


def _checked(q, q_segments, d, d_segments, queries, documents) -> tuple[Texts, Texts]:
    """The texts of both sides. Raises `UserError` if arguments do not fit together."""
    for name, x, ids in ("queries", q, q_segments), ("documents", d, d_segments):
        if jnp.ndim(x) != 3 or jnp.shape(ids) != jnp.shape(x)[:2]:
            raise UserError(
                f"maxsim: vectors of the {name} have shape {jnp.shape(x)} and segment ids "
                f"{jnp.shape(ids)}; [rows, tokens, width] and [rows, tokens] are needed"
            )
    if q.shape[2] != d.shape[2] or q.dtype != d.dtype:
        raise UserError(
            f"maxsim: queries have {q.shape[2]} dimensions in {q.dtype}, documents have "
            f"{d.shape[2]} in {d.dtype}; they must be the same"
        )
    texts = []
    for name, given, ids in ("queries", queries, q_segments), ("documents", documents, d_segments):
        of = numbering.reading_order(ids) if given is None else given
        if jnp.ndim(of.numbers) != 2 or len(of.numbers) != len(ids):
            raise UserError(
                f"maxsim: numbers of the {name} have shape {jnp.shape(of.numbers)}; there are "
                f"{len(ids)} rows, and [rows, texts of a row] is needed"
            )
        texts.append(of)
    return texts[0], texts[1]
