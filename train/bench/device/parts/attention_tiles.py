"""Times of other tiles of attention kernels, and a tuning file with the best."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from modernbert_jax import platform
from modernbert_jax.attention import choice, key_ranges, tuning

from .. import cases, timing
from ..cases import Layer, Options
from ..registry import register
from ..results import Number, Numbers, Result, attempt
from ..scale import Scale
from . import attention_times as times

TUNING = "tuning.json"
"""Name of the file, which `MODERNBERT_JAX_TUNING` may point to."""


class Tile(NamedTuple):
    """One of the options that an implementation's `SWEEP` lists."""

    layer: Layer
    name: str
    group: int
    """Place in `SWEEP`: options of one group exclude each other."""
    changes: Options

    @property
    def forward(self) -> bool:
        """Whether it concerns the forward pass alone."""
        return all(option.startswith("fwd_") for option, _ in self.changes)

    @property
    def told(self) -> str:
        """The options in a table."""
        return " ".join(f"{option}={n}" for option, n in self.changes)


@register("tiles", group="tiles", order=80, seconds=60)
def tiles(scale: Scale) -> Iterator[Result]:
    """Every tile on documents in the longest rows; the best ones go into a tuning file."""
    entries: dict[str, dict[str, dict[str, int]]] = {}
    for kind in cases.WINDOWS:
        layer = Layer(kind, scale.time_lengths[0], times.dtype(scale))
        fastest: dict[tuple[str, int], tuple[float, Options]] = {}
        for tile, program in timing.compile_all(programs(layer, scale)):
            measure = partial(_measured, program, tile, scale)
            labels = layer.labels(tile.name) | {"tile": tile.told}
            result = attempt(layer.name(tile.name, tile.told), labels, measure)
            yield result
            if result.status == "ok":
                key, taken = (tile.name, tile.group), result.numbers["time"].value
                fastest[key] = min((taken, tile.changes), fastest.get(key, (taken, tile.changes)))
        for (name, _), (_, changes) in fastest.items():
            entry = entries.setdefault(f"{kind} {scale.head_dim} {layer.dtype}", {})
            entry.setdefault(name, {}).update(changes)
    if entries and scale.folder:
        table = {platform.device()[1]: entries}
        tuning.parse(table, "recommended tiles")
        (Path(scale.folder) / TUNING).write_text(json.dumps(table, indent=2) + "\n")


def programs(layer: Layer, scale: Scale) -> Iterator[tuple[Tile, timing.Program]]:
    """Every tile over the tuned ones of the other kernels; on a CPU the first one alone."""
    arguments = cases.shapes(layer, times.rows(layer, scale), scale)
    for name, why in cases.implementations(layer, scale):
        groups = () if why else getattr(choice.module_of(name), "SWEEP", ())
        for number, group in enumerate(groups[:1] if scale.tiny else groups):
            for changes in group[:1] if scale.tiny else group:
                tile = Tile(layer, name, number, tuple(changes.items()))
                options = dict(cases.options(name, layer, scale)) | changes
                function = cases.forward(name, layer, tuple(options.items()))
                if tile.forward:
                    yield tile, timing.Program(function, arguments[:4])
                else:
                    yield tile, timing.Program(cases.both(function), arguments)


def _measured(program: Callable | Exception, tile: Tile, scale: Scale) -> Numbers:
    run, layer = timing.ready(program), tile.layer
    ids = times.segments(layer, "documents", scale)
    ranges = jax.jit(partial(key_ranges, window=layer.window))(ids)
    *qkv, cotangent = cases.operands(layer, len(ids), scale)
    arguments = (*qkv, ranges) if tile.forward else (*qkv, ranges, cotangent)
    taken = timing.seconds(lambda: run(*arguments), scale.timed_seconds, scale.repeats)
    return {"time": Number(1e3 * taken, "ms")}
