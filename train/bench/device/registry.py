"""The parts of a run, and how they register themselves."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterator

from .results import Result
from .scale import Scale

Function = Callable[[Scale], Iterator[Result]]

GROUPS = {
    "ceilings": "What the device reaches",
    "attention": "Attention against the oracle",
    "scoring": "Scoring against the oracle",
    "loss": "Losses against the oracle",
    "model": "The whole model against the oracle",
    "kernels": "Attention times",
    "interaction": "MaxSim of all queries and documents, beside the einsum",
    "tiles": "Tiles of attention kernels",
    "training": "Training steps",
    "encoding": "Encoding in the paper's efficiency protocol",
    "memory": "Predictions of memory that were not made",
}
"""Groups in the order of the tables, with their headings. An unknown group comes last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A function that runs in a process of its own."""

    name: str
    group: str
    function: Function
    """Module-level, so that another process can import it."""
    order: int = 100
    """Parts with small numbers run first."""
    seconds: float = 30.0
    """Expected duration on one H100; a part that has four times as long is stopped."""
    background: bool = False
    """Runs on the CPU beside all others, whatever the device."""


_PARTS: dict[str, Part] = {}


def register(
    name: str, *, group: str, order: int = 100, seconds: float = 30.0, background: bool = False
) -> Callable[[Function], Function]:
    """Decorates a function of `parts` that yields results.

    Args:
        name: of the part, unique.
        group: table of its results, by the keys of `GROUPS`.
        order: place in the sequence; the most telling part comes first.
        seconds: expected duration on one H100.
        background: whether it needs the CPU only and may run beside other parts.
    """

    def add(function: Function) -> Function:
        if name in _PARTS:
            raise ValueError(f"part {name!r} is registered twice")
        _PARTS[name] = Part(
            name=name,
            group=group,
            function=function,
            order=order,
            seconds=seconds,
            background=background,
        )
        return function

    return add


def parts() -> list[Part]:
    """All registered parts in their order."""
    from . import parts as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(_PARTS.values(), key=lambda part: (part.order, part.name))
