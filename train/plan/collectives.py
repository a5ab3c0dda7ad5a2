"""The collectives of a compiled program, read from its text.

The text is an optimised HLO module (`compiled.as_text()`), in which devices are numbered by their
place in the mesh. Bytes are those that each device sends by the ring algorithm, such as
2 (n - 1) / n of the array for an all-reduce among n devices, on any hardware.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_OPERATION = re.compile(
    rf"= (?P<shapes>.*?) (?:ragged-)?(?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z\d]*)\[([\d,<=]*)\]")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:,\s*device_ids=\(([^)]*\)?)\))? \{([^}]*)\}")
_MESH_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_IOTA = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """Operations of one kind along the same axes, and how often they run."""

    kind: str
    """One of `KINDS`."""
    axes: tuple[str, ...]
    """Axes of the mesh along which devices exchange."""
    times: int
    """Executions in one call of the program, with the iterations of loops."""
    bytes: int
    """Bytes that each device sends in all executions."""
    counted: bool = True
    """False if a loop with an unknown number of iterations contains it; then it counts once."""


def collectives(text: str, mesh: Mesh) -> list[Collective]:
    """List the collectives of a program compiled for `mesh`, by kind and axes, largest first."""
    bodies = _computations(text)
    totals: dict[tuple[str, tuple[str, ...]], Collective] = {}
    for computation, times, counted in _reached(bodies):
        for line in bodies[computation]:
            operation = _OPERATION.search(line)
            if operation is None:
                continue
            kind = operation["kind"]
            pairs = kind == "collective-permute"
            groups = _pairs(line) if pairs else device_groups(line, mesh.size)
            axes = _axes(groups, mesh)
            if not axes:
                continue
            size = 2 if pairs else groups.shape[1]
            sent = _sent(kind, _bytes(operation), size) * times
            key = kind, axes
            before = totals.get(key, Collective(*key, 0, 0))
            totals[key] = Collective(
                *key, before.times + times, before.bytes + sent, before.counted and counted
            )
    return sorted(totals.values(), key=lambda c: -c.bytes)


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation; the entry's name begins with "ENTRY "."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith("HloModule"):
            lines = bodies.setdefault((head[1] or "") + head[2], [])
        else:
            lines.append(line)
    return bodies


def _reached(bodies: dict[str, list[str]]) -> Iterator[tuple[str, int, bool]]:
    """Yield each computation that runs, how often, and whether that is known.

    A computation with two callers is yielded twice.
    """
    entry = next(name for name in bodies if name.startswith("ENTRY "))
    todo = [(entry, 1, True)]
    while todo:
        name, times, counted = todo.pop()
        yield name, times, counted
        for line in bodies[name]:
            if loop := re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                count = _iterations(line, loop[1], bodies)
                todo.append((loop[2], times * (count or 1), counted and count is not None))
                continue
            called = re.findall(
                r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line
            )
            if branches := re.search(r"(?:branch|called)_computations=\{([^}]*)\}", line):
                called += [branch.strip(" %") for branch in branches[1].split(",")]
            todo += [(other, times, counted) for other in called if other in bodies]


def _iterations(line: str, condition: str, bodies: dict[str, list[str]]) -> int | None:
    """Iterations of a loop: as the compiler states, or by the one constant of its condition."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line):
        return int(known[1])
    limits = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(bodies.get(condition, ())))
    return int(limits[0]) if len(set(limits)) == 1 else None


def device_groups(line: str, devices: int) -> np.ndarray:
    """Groups of devices that exchange with each other: int [groups, devices], or the first one."""
    if match := _MESH.search(line):
        return _mesh_groups(*match.groups())
    if match := _GROUPS.search(line):
        return _iota(match[3]).reshape(int(match[1]), int(match[2]))
    if match := _LISTED.search(line):
        return np.array([[int(n) for n in match[1].split(",")]])
    return np.arange(devices)[None]


def _mesh_groups(axes: str, device_ids: str | None, along: str) -> np.ndarray:
    """Groups written as axes of a mesh of the partitioner's own, or as parts of such axes."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes)}
    order = np.arange(math.prod(sizes.values()))
    if device_ids:
        order = _iota(device_ids).reshape(-1)
    parts: dict[str, tuple[int, int]] = {}  # devices of an axis before a part, and in it
    for name, before, size in _MESH_AXIS.findall(along):
        parts[name] = (int(before), int(size)) if size else (1, sizes[name])
    shape: list[int] = []
    wanted: list[int] = []
    for name, size in sizes.items():
        before, inside = parts.get(name, (1, 1))
        wanted += [len(shape) + 1] if name in parts else []
        shape += [before, inside, size // before // inside]
    others = [i for i in range(len(shape)) if i not in wanted]
    count = math.prod(shape[i] for i in wanted)
    return order.reshape(shape).transpose([*others, *wanted]).reshape(-1, count)


def _iota(text: str) -> np.ndarray:
    """0, 1, 2, ... in a shape, transposed: "[2,4]T(1,0)"."""
    shape, transposed = _IOTA.findall(text)[0]
    sizes = [int(n) for n in shape.split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers.transpose([int(n) for n in transposed.split(",")]) if transposed else numbers


def _pairs(line: str) -> np.ndarray:
    """Pairs of devices that exchange, without pairs of a device with itself."""
    match = _PAIRS.search(line)
    numbers = [int(n) for n in re.findall(r"\d+", match[1] if match else "")]
    pairs = np.array(numbers, int).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _axes(groups: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    """Axes of the mesh along which the devices of a group differ."""
    if not groups.size:
        return ()
    places = np.array(np.unravel_index(groups, tuple(mesh.shape.values())))
    varies = (places != places[:, :, :1]).any(axis=(1, 2))
    return tuple(axis for axis, v in zip(mesh.axis_names, varies, strict=True) if v)


def _bytes(operation: re.Match) -> int:
    """Bytes of the result. Asynchronous starts, except all-reduce, list their operands first."""
    arrays = _ARRAY.findall(operation["shapes"])
    if operation["start"] and operation["kind"] != "all-reduce":
        arrays = [m for m in arrays if not (m[0] == "u32" and not m[2])]  # the runtime's own
        arrays = arrays[len(arrays) // 2 :]
    return sum(
        math.prod(int(n) for n in re.findall(r"\d+", dims)) * max(int(bits or 8), 8) // 8
        for _, bits, dims in arrays
    )


def _sent(kind: str, size: int, devices: int) -> int:
    """Bytes that each device sends for a result of `size` bytes, by the ring algorithm."""
    share = (devices - 1) / devices
    factor = {
        "all-reduce": 2 * share,
        "all-gather": share,
        "reduce-scatter": devices - 1,
        "all-to-all": share,
        "collective-permute": 1,
    }[kind]
    return round(size * factor)
