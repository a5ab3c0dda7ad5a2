"""`Rules`: which candidates may be negatives, and how many are chosen."""

import dataclasses
from typing import Literal

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Count, Finite, Natural, NonNegative, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """Which candidates may be negatives, and how many are chosen; sentence-transformers' names."""

    range_min: Natural = 0
    """Number of the best candidates to skip."""
    range_max: Count | None = None
    """Number of the best candidates to choose from, those of `range_min` included. None is
    range_min + num_negatives + the most positives of a query, or with a margin, max_score, or a
    cross-encoder with min_score, ten times num_negatives."""
    max_score: Finite | None = None
    """Highest score of a negative."""
    min_score: Finite | None = None
    """Lowest score of a negative."""
    absolute_margin: NonNegative | None = None
    """How far the score of a negative is below that of the query's worst positive, at least."""
    relative_margin: NonNegative | None = None
    """The same as a share of the magnitude of the positive's score. 0.05 is a usual value."""
    num_negatives: Count = 3
    """Negatives of each query."""
    sampling: Literal["top", "random"] = "top"
    """Whether the best candidates are chosen, or random ones."""
    seed: Seed = 0
    """Seed of the random choice."""

    def check(self) -> None:
        """Raise `UserError` for values that are out of range, or exclude each other."""
        ranges.check(self)
        if self.range_max is not None and self.range_max - self.range_min < self.num_negatives:
            raise UserError(
                f"range_max is {self.range_max}: it leaves {self.range_max - self.range_min}"
                f" candidates after range_min {self.range_min}, fewer than num_negatives"
                f" {self.num_negatives}"
            )

    def window(self, most_positives: int, rescored: bool) -> int:
        """The number of best candidates to choose from.

        Args:
            most_positives: the largest number of positives of a query.
            rescored: whether a cross-encoder scores the candidates.
        """
        if self.range_max is not None:
            return self.range_max
        margins = (self.absolute_margin, self.relative_margin, self.max_score)
        drops = any(rule is not None for rule in margins)
        drops |= rescored and self.min_score is not None
        return self.range_min + self.num_negatives * (10 if drops else 1) + most_positives
