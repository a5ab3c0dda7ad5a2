"""A mixture of components: the component and row at each position of training."""

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping

import grain
import numpy as np

from modernbert_jax.errors import UserError

BLOCK = 1024
"""Positions computed at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A component's size, and how much of it is wanted."""

    rows: int
    tokens: int
    """Tokens in all its rows."""
    weight: float | None = None
    """Share of the tokens, relative to the others; None is all its tokens, `epochs` times."""
    epochs: float | None = None
    """How often it may be read; None is any number of times."""


class Order(grain.transforms.DatasetSelectionMap):
    """Maps each position to a component and one of its rows, independently of other positions.

    Row k of a component is due at time (k + 1/2) / rate, where the rate is the component's weight
    over the tokens in a row of it. Rows come in the order of these times, and at equal times in
    the order of the components' names. At any point each component is within two rows of its
    share of the tokens. A component that has been read `epochs` times drops out, and the others
    keep their proportions.
    """

    def __init__(self, shares: Mapping[str, Share]):
        """Mix components by name. Raises `UserError` if only some of them have a weight."""
        self.names = tuple(sorted(shares))
        listed = [shares[name] for name in self.names]
        bare = [name for name in self.names if shares[name].weight is None]
        if bare and len(bare) < len(listed):
            raise UserError(
                f"mixture: {bare[0]} has no weight and others have; give it one, or none to any"
            )
        weights = [s.tokens * (s.epochs or 1.0) if s.weight is None else s.weight for s in listed]
        self.weights = dict(zip(self.names, map(float, weights), strict=True))
        self._rates = np.array(
            [w * s.rows / s.tokens for w, s in zip(weights, listed, strict=True)]
        )
        self._rates /= self._rates.max()
        self._rows = np.array([s.rows for s in listed])
        self._caps = np.array(
            [math.inf if s.epochs is None else round(s.epochs * s.rows) for s in listed]
        )
        self._block = functools.lru_cache(maxsize=64)(self._make_block)

    def __len__(self) -> int:
        """Rows until every component is exhausted; `sys.maxsize` if one never is."""
        total = self._caps.sum()
        return sys.maxsize if math.isinf(total) else int(total)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Index of the component in `names`, and number of the row among those read from it."""
        block, i = divmod(position, BLOCK)
        components, rows = self._block(block)
        return int(components[i]), int(rows[i])

    def components(self, start: int, stop: int) -> np.ndarray:
        """Component of each position from `start` to `stop`, int [stop - start]."""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        blocks = np.concatenate([self._block(b)[0] for b in range(first, last + 1)])
        return blocks[start - first * BLOCK : stop - first * BLOCK]

    def counts(self, position: int) -> np.ndarray:
        """Rows of each component before a position, int [components]."""
        counts, remaining = self._before(position)
        components, _ = self._due(counts, remaining)
        return counts + np.bincount(components[:remaining], minlength=len(counts))

    def epochs(self, position: int) -> np.ndarray:
        """How often each component has been read before a position, float [components]."""
        return self.counts(position) / self._rows

    def contents(self, tokens: np.ndarray, position: int) -> dict[str, float]:
        """Fields of `metrics.jsonl`: each component's share of some tokens, and its epochs so far.

        Args:
            tokens: Tokens of each component, int [components].
            position: Rows read so far, over all processes.
        """
        shares, epochs = tokens / max(tokens.sum(), 1), self.epochs(position)
        return {
            f"{what}/{name}": float(value)
            for what, values in (("share", shares), ("epochs", epochs))
            for name, value in zip(self.names, values, strict=True)
        }

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        counts, remaining = self._before(block * BLOCK)
        components, rows = self._due(counts, remaining + BLOCK)
        return components[remaining:], rows[remaining:]

    def _before(self, position: int) -> tuple[np.ndarray, int]:
        """Rows due by a time shortly before a position, and how many positions remain."""
        low, high = 0.0, float((np.minimum(self._caps, position + 1) / self._rates).max())
        counts = np.zeros(len(self.names), np.int64)
        while (remaining := position - int(counts.sum())) > BLOCK:
            middle = (low + high) / 2
            if middle in (low, high):
                break
            due = self._due_by(middle)
            if due.sum() <= position:
                low, counts = middle, due
            else:
                high = middle
        return counts, remaining

    def _due_by(self, time: float) -> np.ndarray:
        """Rows of each component that are due by `time`, int [components]."""
        counts = np.floor(time * self._rates + 0.5)
        counts -= (counts - 0.5) / self._rates > time  # floor may be off by one
        counts += (counts + 0.5) / self._rates <= time
        return np.minimum(counts, self._caps).astype(np.int64)

    def _due(self, counts: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Components and rows of the `number` positions after `counts` rows of each."""
        rows = counts[:, None] + np.arange(number)
        times = np.where(rows < self._caps[:, None], (rows + 0.5) / self._rates[:, None], math.inf)
        nearest = np.argsort(times.ravel(), kind="stable")[:number]
        nearest = nearest[np.isfinite(times.ravel()[nearest])]
        components = np.repeat(np.arange(len(counts)), number)[nearest]
        return components, rows.ravel()[nearest]
