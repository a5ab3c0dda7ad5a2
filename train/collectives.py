"""What a compiled program sends between devices, read from its text."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_OPERATION = re.compile(
    r"= (?P<shapes>.*?) (?P<name>all-reduce|all-gather|reduce-scatter|all-to-all"
    r"|collective-permute)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation of the program, and how often it runs."""

    name: str
    axes: tuple[str, ...]
    """Axes of the mesh that it runs along."""
    bytes: int
    """That each device sends, by the ring algorithm, each time."""
    times: int
    """In one call of the program: the trip counts of the loops around it."""


def collectives(text: str, mesh: Mesh) -> list[Collective]:
    """The collectives of an optimised HLO module compiled for `mesh`."""
    bodies = _computations(text)
    found = []
    for computation, times in _reached(bodies):
        for line in bodies[computation]:
            match = _OPERATION.search(line)
            if match is None:
                continue
            axes = _axes(_group(line) or range(mesh.size), mesh)
            if not axes:
                continue
            size = math.prod(mesh.shape[axis] for axis in axes)
            moved = _moved(match["name"], _size(match["shapes"], match), size)
            found.append(Collective(match["name"], axes, moved, times))
    return found


def totals(found: list[Collective]) -> list[Collective]:
    """One entry per operation and axes: `bytes` of all its runs together, largest first."""
    sums: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for c in found:
        total = sums.setdefault((c.name, c.axes), [0, 0])
        total[0] += c.bytes * c.times
        total[1] += c.times
    entries = [Collective(name, axes, b, n) for (name, axes), (b, n) in sums.items()]
    return sorted(entries, key=lambda c: -c.bytes)


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation; the entry's name begins with "ENTRY "."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith((" ", "HloModule")):
            lines = bodies.setdefault((head[1] or "") + head[2], [])
        elif lines is not None:
            lines.append(line)
    return bodies


def _reached(bodies: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    """Every computation that runs, with how often; one that is called twice comes twice."""
    entry = next(name for name in bodies if name.startswith("ENTRY "))
    todo = [(entry, 1)]
    while todo:
        name, times = todo.pop()
        yield name, times
        for line in bodies[name]:
            if loop := re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                trips = _trips(line, bodies.get(loop[1], []))
                todo.append((loop[2], times * trips))
                continue
            called = re.findall(
                r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line
            )
            if branches := re.search(r"branch_computations=\{([^}]*)\}", line):
                called += [branch.strip(" %") for branch in branches[1].split(",")]
            todo += [(other, times) for other in called if other in bodies]


def _trips(line: str, condition: list[str]) -> int:
    """How often a loop runs: as the compiler says, or by the constant that its counter meets."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line):
        return int(known[1])
    limits = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(condition))
    return max(map(int, limits), default=1)


def _group(line: str) -> list[int]:
    """The devices of one group that exchange, by their place in the mesh; empty means all."""
    if iota := _IOTA.search(line):
        groups, size = int(iota[1]), int(iota[2])
        ids = np.arange(groups * size).reshape([int(n) for n in iota[3].split(",")])
        if iota[4]:
            ids = ids.transpose([int(n) for n in iota[4].split(",")])
        return ids.reshape(groups, size)[0].tolist()
    listed = _LISTED.search(line)
    return [int(n) for n in listed[1].split(",")] if listed else []


def _axes(group: Sequence[int], mesh: Mesh) -> tuple[str, ...]:
    """Axes along which the devices of a group differ."""
    places = np.array(np.unravel_index(np.array(group), tuple(mesh.shape.values())))
    varies = (places != places[:, :1]).any(axis=1)
    return tuple(axis for axis, v in zip(mesh.axis_names, varies, strict=False) if v)


def _size(shapes: str, match: re.Match) -> int:
    """Bytes of the result; of an asynchronous start, which also names its operands, the last."""
    arrays = _ARRAY.findall(shapes)
    sizes = [
        _BYTES.get(kind, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for kind, dims in arrays
    ]
    if match["start"] and match["name"] in ("all-gather", "collective-permute"):
        return max(sizes)
    return sum(sizes)


def _moved(name: str, size: int, devices: int) -> int:
    """Bytes that each device sends for a result of `size` bytes, with the ring algorithm."""
    share = (devices - 1) / devices
    factor = {
        "all-reduce": 2 * share,
        "all-gather": share,
        "reduce-scatter": devices - 1,
        "all-to-all": share,
        "collective-permute": 1,
    }[name]
    return int(size * factor)
