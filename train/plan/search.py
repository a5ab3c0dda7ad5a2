"""The lightest rematerialisation, and with it the largest microbatch, that fit: by few compiles.

Memory is estimated from what is traced, corrected by what compiles said so far, and looked up where
it matters: at the best choice, and at the next larger one unless that is far beyond the limit.
"""

import dataclasses
from collections.abc import Callable, Sequence

from .program import Compiled, Variant

REMATS = ("none", "dots", "full")
"""From the lightest to the heaviest."""

MARGIN = 1.1
"""An estimate that is above the limit by this is taken for granted."""


@dataclasses.dataclass
class Search:
    """What is known of one stage on one machine."""

    rows: Sequence[int]
    """Microbatches that divide evenly, smallest first."""
    limit: int
    """Bytes of each device."""
    guess: Callable[[Variant], float]
    """Bytes that a choice takes, before anything was compiled."""
    compile: Callable[[Variant], Compiled]
    known: dict[Variant, Compiled] = dataclasses.field(default_factory=dict)
    """What was compiled."""

    def look(self, choice: Variant) -> Compiled:
        """Compiles a choice, once."""
        if choice not in self.known:
            self.known[choice] = self.compile(choice)
        return self.known[choice]

    def fits(self, choice: Variant) -> bool:
        """Whether a choice that is compiled fits."""
        found = self.known[choice]
        return not found.refused and found.peak <= self.limit

    def estimate(self, choice: Variant) -> float:
        """Bytes that a choice takes, by what is known of its neighbours."""
        told = {c: found.peak for c, found in self.known.items() if found.peak}
        same = sorted(c for c in told if c.remat == choice.remat)
        if len(same) > 1:  # memory is linear in rows
            a, b = sorted(same, key=lambda c: abs(c.rows - choice.rows))[:2]
            slope = (told[b] - told[a]) / (b.rows - a.rows)
            return told[a] + slope * (choice.rows - a.rows)
        near = same or sorted(told, key=lambda c: abs(c.rows - choice.rows))
        ratio = told[near[0]] / self.guess(near[0]) if near else 1.0
        return ratio * self.guess(choice)

    def best(self) -> Variant | None:
        """The choice to make; compiled, as is whatever it was close to. None if nothing fits."""
        for remat in REMATS:
            if (rows := self._largest(remat)) is not None:
                return Variant(remat, rows)
        return None

    def _largest(self, remat: str) -> int | None:
        choices = [Variant(remat, rows) for rows in self.rows]
        fitting, failing = -1, len(choices)
        for i, choice in enumerate(choices):
            if choice in self.known:
                if self.fits(choice):
                    fitting = i
                else:
                    failing = min(failing, i)
        while fitting + 1 < failing:
            between = range(fitting + 1, failing)
            inside = [i for i in between if self.estimate(choices[i]) <= self.limit]
            i = max(inside, default=fitting + 1)
            if not inside and self.estimate(choices[i]) > MARGIN * self.limit:
                break
            self.look(choices[i])
            if self.fits(choices[i]):
                fitting = i
            else:
                failing = i
        return choices[fitting].rows if fitting >= 0 else None
