"""Search for the lightest rematerialisation and the largest microbatch that fit, by few compiles.

Memory is estimated from tracing and corrected by the results of compiling. Only decisive variants
are compiled: the best one, and the next larger one unless its estimate is far above the limit.
"""

import dataclasses
from collections.abc import Callable, Sequence

from modernbert_jax.config import Remat

from .program import Compiled, Variant

REMATS: tuple[Remat, ...] = ("none", "dots", "full")
"""From the lightest to the heaviest."""

MARGIN = 1.1
"""Factor over the limit from which on an estimate is trusted without compiling."""


@dataclasses.dataclass
class Search:
    """A search for one stage on one machine."""

    rows: Sequence[int]
    """Possible rows of a microbatch, smallest first."""
    limit: int
    """Bytes available on each device."""
    guess: Callable[[Variant], float]
    """Estimates a variant's bytes without compiling."""
    compile: Callable[[Variant], Compiled]
    known: dict[Variant, Compiled] = dataclasses.field(default_factory=dict)
    """Results of compiling so far."""

    def look(self, variant: Variant) -> Compiled:
        """Compile a variant, once."""
        if variant not in self.known:
            self.known[variant] = self.compile(variant)
        return self.known[variant]

    def fits(self, variant: Variant) -> bool:
        """Whether a compiled variant fits."""
        compiled = self.known[variant]
        return not compiled.refused and compiled.peak <= self.limit

    def estimate(self, variant: Variant) -> float:
        """Bytes that a variant takes, by the peaks of its compiled neighbours."""
        peaks = {v: compiled.peak for v, compiled in self.known.items() if compiled.peak}
        near = sorted(peaks, key=lambda v: abs(v.rows - variant.rows))
        same = [v for v in near if v.remat == variant.remat]
        if len(same) > 1:  # memory is linear in rows
            a, b = same[:2]
            slope = (peaks[b] - peaks[a]) / (b.rows - a.rows)
            return peaks[a] + slope * (variant.rows - a.rows)
        known = (same or near)[:1]
        ratio = peaks[known[0]] / self.guess(known[0]) if known else 1.0
        return ratio * self.guess(variant)

    def best(self) -> Variant | None:
        """The best variant, compiled like its nearest competitors; None if nothing fits."""
        for remat in REMATS:
            if (rows := self._largest(remat)) is not None:
                return Variant(remat, rows)
        return None

    def _largest(self, remat: Remat) -> int | None:
        variants = [Variant(remat, rows) for rows in self.rows]
        fits = {i: self.fits(v) for i, v in enumerate(variants) if v in self.known}
        fitting = max((i for i, fit in fits.items() if fit), default=-1)
        failing = min((i for i, fit in fits.items() if not fit), default=len(variants))
        while fitting + 1 < failing:
            between = range(fitting + 1, failing)
            inside = [i for i in between if self.estimate(variants[i]) <= self.limit]
            i = max(inside, default=fitting + 1)
            if not inside and self.estimate(variants[i]) > MARGIN * self.limit:
                break
            self.look(variants[i])
            if self.fits(variants[i]):
                fitting = i
            else:
                failing = i
        return variants[fitting].rows if fitting >= 0 else None
