"""Parts within a budget of time: the most telling first, none at the cost of another."""

import dataclasses
import time
from collections.abc import Iterator, Sequence

from modernbert_jax.errors import UserError

from . import machine
from .processes import Processes, Running
from .registry import Part
from .results import Result
from .scale import Scale

SHARE = 0.4
"""A part is started if so much of its expected duration is left."""

PATIENCE = 4.0
"""A part is stopped after so many times its expected duration."""

LEAST = 60.0
"""Seconds that every part may take if the budget has them."""


@dataclasses.dataclass
class Budget:
    """Seconds for a whole run."""

    seconds: float

    def __post_init__(self):
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.seconds - self.spent


def find_device(processes: Processes, budget: Budget) -> dict[str, str]:
    """Labels of the device. Raises `RuntimeError` if jax finds none."""
    results = processes.run(machine.DEVICE, machine.UNKNOWN, min(budget.left, 120.0))
    if not results or results[0].status != "ok":
        reason = results[0].note if results else "no answer"
        raise RuntimeError(f"jax finds no device: {reason}")
    return dict(results[0].labels)


def run(
    parts: Sequence[Part], scale: Scale, processes: Processes, budget: Budget
) -> Iterator[tuple[Part, list[Result]]]:
    """Runs all parts; yields each with its results when it has ended.

    Background parts run beside the others from the start; the others run one after another.
    """
    began = [processes.start(part, scale) for part in parts if part.background]
    for part in parts:
        if part.background:
            continue
        if budget.left < SHARE * part.seconds:
            note = f"{max(budget.left, 0):.0f} s were left, and it takes about {part.seconds:.0f} s"
            yield part, [_skipped(part, note)]
        else:
            yield part, _watched(processes.start(part, scale), budget)
    for running in began:
        yield running.part, running.finish(budget.left)


def choose(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The parts of some names or groups; all if none are given. Raises `UserError`."""
    known = {part.name for part in parts} | {part.group for part in parts}
    for name in names:
        if name not in known:
            raise UserError(f"no part {name!r}; known: {', '.join(sorted(known))}")
    return [p for p in parts if not names or {p.name, p.group} & set(names)]


def summary(part: Part, results: Sequence[Result]) -> str:
    """One line about a part that has ended."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    told = ", ".join(f"{n} {status}" for status, n in counts.items()) or "no results"
    failed = [f"{r.name}: {r.note}" for r in results if r.status == "failed"]
    return f"{part.name}: {told}" + "".join(f"\n  failed: {line}" for line in failed)


def _watched(running: Running, budget: Budget) -> list[Result]:
    return running.finish(min(budget.left, max(PATIENCE * running.part.seconds, LEAST)))


def _skipped(part: Part, note: str) -> Result:
    return Result(name=part.name, part=part.name, group=part.group, status="skipped", note=note)
