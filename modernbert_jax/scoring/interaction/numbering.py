"""Where the texts of packed rows are in a result: their numbers, and those of their tokens."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.errors import UserError


class Texts(NamedTuple):
    """Places of the texts of packed rows in a result.

    A row has places for S texts: segment s of row r is at place r * S + s - 1.
    """

    numbers: Any
    """Number in the result of the text at each place, int32 [rows, S]. Each number from 0 to
    total - 1 is there at most once; others, such as total, are places without a text."""
    total: int
    """Number of texts in the result."""

    @property
    def flat(self) -> Any:
        """Number at each place, int32 [rows * S]; `total` where there is no text."""
        xp = jnp if isinstance(self.numbers, jax.Array) else np
        numbers = xp.asarray(self.numbers, xp.int32).reshape(-1)
        return xp.where((numbers < 0) | (numbers > self.total), self.total, numbers)

    @property
    def places(self) -> Any:
        """The place of each text, int32 [total]; rows * S where there is none."""
        numbers = self.flat
        if isinstance(numbers, jax.Array):
            nowhere = jnp.full(self.total + 1, len(numbers), jnp.int32)
            return nowhere.at[numbers].set(jnp.arange(len(numbers), dtype=jnp.int32))[:-1]
        places = np.full(self.total + 1, len(numbers), np.int32)
        places[numbers] = np.arange(len(numbers))
        return places[:-1]


def reading_order(segment_ids: Any) -> Texts:
    """Texts numbered row by row, in a row by their ids.

    A text without counted tokens has a number if another one of its row has a larger id.

    Args:
        segment_ids: [rows, T], 0 for tokens that do not count.

    Raises:
        UserError: the ids are not known while a program is traced.
    """
    if isinstance(segment_ids, jax.core.Tracer):
        raise UserError(
            "maxsim: the number of texts has to be known before a program is traced; give "
            "queries and documents as Texts(numbers, total)"
        )
    ids = np.asarray(segment_ids)
    counts = ids.max(axis=1, initial=0)
    total, most = int(counts.sum()), max(1, int(counts.max(initial=0)))
    place = np.arange(most)
    numbers = (np.cumsum(counts) - counts)[:, None] + place
    return Texts(np.where(place < counts[:, None], numbers, total).astype(np.int32), total)


@jax.custom_vjp
def taken(x: jax.Array, places: Any, numbers: Any) -> jax.Array:
    """Rows of x at the places of texts, [total, ...]; zeros for texts that have none.

    The gradient is taken by number in turn: TPUs are slow at adding to scattered rows.

    Args:
        x: [rows * S, ...].
        places: of the texts, `Texts.places`.
        numbers: at the places, `Texts.flat`.
    """
    return x.at[places].get(mode="fill", fill_value=0)


def _taken_forward(x, places, numbers):
    return taken(x, places, numbers), numbers


def _taken_backward(numbers, gradient):
    return gradient.at[numbers].get(mode="fill", fill_value=0), None, None


taken.defvjp(_taken_forward, _taken_backward)


def token_places(segment_ids: jax.Array, texts: int) -> jax.Array:
    """The place r * S + s - 1 of each token's text, int32 [rows, T]; -1 where it does not count.

    Args:
        segment_ids: [rows, T].
        texts: places of a row, S. Larger ids do not count.
    """
    row = jnp.arange(len(segment_ids), dtype=jnp.int32)[:, None]
    counts = (segment_ids > 0) & (segment_ids <= texts)
    return jnp.where(counts, row * texts + segment_ids.astype(jnp.int32) - 1, -1)


class Spans(NamedTuple):
    """Tokens of each text in its row: int32 [rows, S] each; empty where start >= stop."""

    start: jax.Array
    """The first counted token."""
    stop: jax.Array
    """The token after the last counted one."""
    counted: jax.Array
    """Number of counted tokens."""


def spans(segment_ids: jax.Array, texts: int) -> Spans:
    """Spans of the `texts` places of each row, from segment ids [rows, T]."""
    length = segment_ids.shape[1]
    here = jnp.arange(length, dtype=jnp.int32)
    own = segment_ids[:, None] == jnp.arange(1, texts + 1, dtype=jnp.int32)[:, None]
    return Spans(
        jnp.where(own, here, length).min(-1),
        jnp.where(own, here + 1, 0).max(-1),
        own.sum(-1, dtype=jnp.int32),
    )
