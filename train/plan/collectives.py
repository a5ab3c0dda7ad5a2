"""What a compiled program sends between devices, read from its text.

The text is that of an optimised HLO module (`compiled.as_text()`), in which devices are numbered by
their place in the mesh. Bytes are those that each device sends by the ring algorithm, whatever the
hardware makes of it: 2 (n - 1) / n of the array for an all-reduce among n devices, and so on.
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
    """One operation of the program, or several alike, and how often they run."""

    kind: str
    """One of `KINDS`."""
    axes: tuple[str, ...]
    """Axes of the mesh along which devices exchange."""
    times: int
    """In one call of the program: loops are counted by their trips."""
    bytes: int
    """That each device sends, all times together."""
    counted: bool = True
    """False if it is in a loop whose trips are not known; these are then counted once."""


def collectives(text: str, mesh: Mesh) -> list[Collective]:
    """The collectives of a program compiled for `mesh`, those alike as one, the largest first."""
    bodies = _computations(text)
    totals: dict[tuple[str, tuple[str, ...]], Collective] = {}
    for computation, times, counted in _reached(bodies):
        for line in bodies[computation]:
            found = _OPERATION.search(line)
            if found is None:
                continue
            pairs = found["kind"] == "collective-permute"
            groups = _pairs(line) if pairs else _group(line, mesh.size)
            axes = _axes(groups, mesh)
            if not axes:
                continue
            size = 2 if pairs else groups.shape[1]
            moved = _sent(found["kind"], _bytes(found), size) * times
            key = found["kind"], axes
            before = totals.get(key, Collective(*key, 0, 0))
            totals[key] = Collective(
                *key, before.times + times, before.bytes + moved, before.counted and counted
            )
    return sorted(totals.values(), key=lambda c: -c.bytes)


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation; the entry's name begins with "ENTRY "."""
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
    """Every computation that runs, with how often, and whether that is known.

    One that is called from two places comes twice.
    """
    entry = next(name for name in bodies if name.startswith("ENTRY "))
    todo = [(entry, 1, True)]
    while todo:
        name, times, counted = todo.pop()
        yield name, times, counted
        for line in bodies[name]:
            if loop := re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                trips = _trips(line, loop[1], bodies)
                todo.append((loop[2], times * (trips or 1), counted and trips is not None))
                continue
            called = re.findall(
                r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line
            )
            if branches := re.search(r"(?:branch|called)_computations=\{([^}]*)\}", line):
                called += [branch.strip(" %") for branch in branches[1].split(",")]
            todo += [(other, times, counted) for other in called if other in bodies]


def _trips(line: str, condition: str, bodies: dict[str, list[str]]) -> int | None:
    """How often a loop runs: as the compiler says, or by the constant that its counter meets."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line):
        return int(known[1])
    limits = re.findall(r"s32\[\]\S* constant\((\d+)\)", "\n".join(bodies.get(condition, ())))
    return int(limits[0]) if len(set(limits)) == 1 else None


def _group(line: str, devices: int) -> np.ndarray:
    """Places in the mesh of devices that exchange with each other: one group a row, or one row."""
    if found := _MESH.search(line):
        return _mesh_groups(*found.groups())
    if found := _GROUPS.search(line):
        return _iota(found[3]).reshape(int(found[1]), int(found[2]))
    if found := _LISTED.search(line):
        return np.array([[int(n) for n in found[1].split(",")]])
    return np.arange(devices)[None]


def _mesh_groups(axes: str, device_ids: str | None, along: str) -> np.ndarray:
    """Groups given as axes of a mesh that the partitioner made up, or as pieces of such axes."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes)}
    order = np.arange(math.prod(sizes.values()))
    if device_ids:
        order = _iota(device_ids).reshape(-1)
    pieces: dict[str, tuple[int, int]] = {}  # devices of an axis before a piece, and in it
    for name, before, size in _MESH_AXIS.findall(along):
        pieces[name] = (int(before), int(size)) if size else (1, sizes[name])
    shape, wanted = [], []
    for name, size in sizes.items():
        before, inside = pieces.get(name, (1, 1))
        wanted += [len(shape) + 1] if name in pieces else []
        shape += [before, inside, size // before // inside]
    others = [i for i in range(len(shape)) if i not in wanted]
    count = math.prod(shape[i] for i in wanted)
    return order.reshape(shape).transpose([*others, *wanted]).reshape(-1, count)


def _iota(text: str) -> np.ndarray:
    """0, 1, 2, ... in a shape, transposed: "[2,4]T(1,0)"."""
    shape, turned = _IOTA.search(text).groups()
    sizes = [int(n) for n in shape.split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers.transpose([int(n) for n in turned.split(",")]) if turned else numbers


def _pairs(line: str) -> np.ndarray:
    """Pairs of places that exchange; none of a device with itself."""
    found = _PAIRS.search(line)
    numbers = [int(n) for n in re.findall(r"\d+", found[1] if found else "")]
    pairs = np.array(numbers, int).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _axes(groups: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    """Axes along which the devices of some group differ."""
    if not groups.size:
        return ()
    places = np.array(np.unravel_index(groups, tuple(mesh.shape.values())))
    varies = (places != places[:, :, :1]).any(axis=(1, 2))
    return tuple(axis for axis, v in zip(mesh.axis_names, varies, strict=True) if v)


def _bytes(found: re.Match) -> int:
    """Bytes of the result. An asynchronous start names its operands first, but of all-reduce."""
    arrays = _ARRAY.findall(found["shapes"])
    if found["start"] and found["kind"] != "all-reduce":
        arrays = [m for m in arrays if not (m[0] == "u32" and not m[2])]  # of the runtime
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
