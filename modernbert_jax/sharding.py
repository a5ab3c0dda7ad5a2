"""Where arrays lie on a mesh of devices: one table for parameters, one for activations.

A mesh has four axes. Rows of a batch are cut over `data` and `fsdp`, tokens of a row over
`context`. A parameter lies whole on every device of `data` and `context`; `fsdp` keeps a piece on
each and gathers a layer when it is used; `tensor` computes with the pieces: heads, feed-forward
units and vocabulary are divided among devices.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError

AXES = ("data", "fsdp", "context", "tensor")
ROW_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices along each axis; at most one is -1: what the others leave."""

    data: int = -1
    """Rows, with a copy of the parameters for each."""
    fsdp: int = 1
    """Rows, with a piece of the parameters and of the optimizer's moments for each."""
    context: int = 1
    """Tokens of a row."""
    tensor: int = 1
    """Heads, feed-forward units and vocabulary."""

    def __post_init__(self):
        for axis in AXES:
            size = getattr(self, axis)
            if size < 1 and size != -1:
                raise UserError(f"mesh.{axis} is {size}; it must be 1 or more, or -1 for the rest")
        if sum(getattr(self, axis) == -1 for axis in AXES) > 1:
            raise UserError("mesh: only one axis can be -1")

    def sizes(self, devices: int) -> tuple[int, ...]:
        """Sizes of `AXES` for a number of devices. Raises `UserError` if they do not come out."""
        sizes = [getattr(self, axis) for axis in AXES]
        given = math.prod(size for size in sizes if size != -1)
        if devices % given or (-1 not in sizes and given != devices):
            shape = ", ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
            raise UserError(f"mesh ({shape}) does not fit {devices} devices; set an axis to -1")
        return tuple(devices // given if size == -1 else size for size in sizes)

    def make(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """The mesh over all devices, or over those given, near ones next to each other.

        Where several TPU slices are joined by a data centre network, only `data` crosses it.
        """
        devices = jax.devices() if devices is None else list(devices)
        sizes = self.sizes(len(devices))
        slices = len({getattr(device, "slice_index", 0) for device in devices})
        if slices > 1:
            if sizes[0] % slices:
                raise UserError(f"mesh.data is {sizes[0]}; {slices} slices need a multiple of it")
            inner = (sizes[0] // slices, *sizes[1:])
            grid = mesh_utils.create_hybrid_device_mesh(
                inner, (slices, 1, 1, 1), devices, allow_split_physical_axes=True
            )
        elif devices[0].platform == "tpu":
            grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        else:
            grid = np.array(devices).reshape(sizes)
        return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingRules:
    """The mesh axes of each kind of dimension; no two kinds of one array may share an axis."""

    rows: tuple[str, ...] = ROW_AXES
    tokens: tuple[str, ...] = ("context",)
    embed: tuple[str, ...] = ("fsdp",)
    heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)
    vocab: tuple[str, ...] = ("tensor",)

    def spec(self, *kinds: str | None) -> P:
        """The specification of an array whose dimensions are of these kinds."""
        axes = [getattr(self, kind) if kind else () for kind in kinds]
        used = [axis for some in axes for axis in some]
        if len(used) != len(set(used)):
            raise ValueError(f"dimensions {kinds} lie on the same mesh axis twice: {used}")
        return P(*(_untuple(some) for some in axes))


RULES = ShardingRules()

PARAMETERS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"embeddings/embedding", ("vocab", "embed")),
    (r"Wqkv/kernel", (None, "embed", "heads")),
    (r"Wqkv/bias", (None, "heads")),
    (r"attn/Wo/kernel", ("heads", "embed")),
    (r"Wi/kernel", (None, "embed", "mlp")),
    (r"Wi/bias", (None, "mlp")),
    (r"mlp/Wo/kernel", ("mlp", "embed")),
    (r"Wo/bias", (None,)),
    (r"(norm|\w+_norm)/(scale|bias)", (None,)),
    (r"head/dense/kernel", ("embed", None)),
    (r"head/dense/bias", (None,)),
    (r"decoder/linear/kernel", ("embed", "vocab")),
    (r"decoder/bias", ("vocab",)),
    (r"classifier/kernel", ("embed", None)),
    (r"classifier/bias", (None,)),
    (r"dense_\d+/(linear|residual)/kernel", ("embed", None)),
    (r"dense_\d+/linear/bias", (None,)),
)
"""Endings of parameter paths, and the kinds of their dimensions. Each path matches one row."""

STACKED = "groups"
"""Parameters below this key have one entry per group of layers on their first axis."""


def parameter_spec(path: str, shape: tuple[int, ...], sizes: dict[str, int]) -> P:
    """How a parameter, or a moment of one, lies on a mesh of these axis sizes.

    An axis that does not divide its dimension is left out: the piece would not be even.
    """
    matches = [kinds for ending, kinds in PARAMETERS if re.search(rf"(^|/){ending}$", path)]
    if len(matches) != 1:
        raise ValueError(f"parameter {path} matches {len(matches)} sharding rules; it must be one")
    kinds = (None, *matches[0]) if STACKED in path.split("/") else matches[0]
    if len(kinds) != len(shape):
        raise ValueError(f"parameter {path} has shape {shape}; its rule has {len(kinds)} axes")
    spec = []
    for axes, size in zip(RULES.spec(*kinds), shape, strict=True):
        pieces = math.prod(sizes[axis] for axis in _tuple(axes))
        spec.append(axes if size % pieces == 0 else None)
    return P(*spec)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a tree of parameters, or of a state that holds such trees.

    A leaf belongs to the parameter at the end of its path; what is none, like a counter, lies
    whole everywhere.
    """
    sizes = dict(mesh.shape)

    def leaf(path, x):
        keys = [getattr(key, "key", getattr(key, "name", None)) for key in path]
        name = "/".join(key for key in keys if isinstance(key, str))
        is_parameter = any(re.search(rf"(^|/){ending}$", name) for ending, _ in PARAMETERS)
        return NamedSharding(mesh, parameter_spec(name, x.shape, sizes) if is_parameter else P())

    return jax.tree_util.tree_map_with_path(leaf, tree)


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Of the arrays [B, T] of a batch: rows over `data` and `fsdp`, tokens over `context`."""
    return NamedSharding(mesh, RULES.spec("rows", "tokens"))


def row_pieces(sizes: Mapping[str, int]) -> int:
    """Into how many pieces a mesh of these axis sizes cuts the rows of a batch."""
    return math.prod(sizes[axis] for axis in ROW_AXES)


def check_mesh(mesh: Mesh, heads: int) -> tuple[int, int]:
    """Numbers of devices among which a mesh divides rows, and tokens of a row.

    Raises:
        UserError: the mesh does not divide the attention heads evenly.
    """
    sizes = mesh.shape
    tensor = math.prod(sizes[axis] for axis in RULES.heads)
    if heads % tensor:
        raise UserError(
            f"{heads} attention heads cannot be divided among {tensor} devices (mesh.tensor);"
            " change it"
        )
    return row_pieces(sizes), math.prod(sizes[axis] for axis in RULES.tokens)


def free_axes() -> dict[str, int]:
    """Axes of the mesh that is set, with their sizes, but those that a `shard_map` has taken."""
    mesh = jax.sharding.get_abstract_mesh()
    return {
        axis: size
        for axis, kind, size in zip(mesh.axis_names, mesh.axis_types, mesh.axis_sizes, strict=True)
        if kind != AxisType.Manual
    }


def constrain(x: jax.Array, *kinds: str | None) -> jax.Array:
    """Says how the dimensions of `x` lie on the mesh that is set; nothing without one.

    A dimension that its axes do not divide evenly lies whole on every device, and axes that a
    surrounding `shard_map` has taken are left out.
    """
    if not free_axes():
        return x
    return jax.lax.with_sharding_constraint(x, _even(x.shape, kinds))


def on_each_device(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function(x)` of hidden states [B, T, D], on each device's own rows and tokens.

    For what treats elements alone: nothing is exchanged.
    """
    sizes = free_axes()
    if math.prod(sizes.values()) == 1:
        return function(x)
    own = _even(x.shape, ("rows", "tokens", None))
    return jax.shard_map(
        function, in_specs=own, out_specs=own, axis_names=set(sizes), check_vma=False
    )(x)


def _even(shape: Sequence[int], kinds: Sequence[str | None]) -> P:
    """How dimensions of these kinds are cut where that goes without a rest."""
    sizes, spec = free_axes(), []
    for axes, size in zip(RULES.spec(*kinds), shape, strict=True):
        free = tuple(axis for axis in _tuple(axes) if axis in sizes)
        even = size % math.prod(sizes[axis] for axis in free) == 0
        spec.append(free if free and even else None)
    return P(*spec)


def over_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(params, *arrays)` on each device's own rows and tokens, its results added up.

    Inside, the gradient of the parameters is summed on each device and exchanged once at the end;
    left to the compiler, a loop exchanges it every time round. `arrays` are [B, T, ...], results a
    tree of sums over rows and tokens. Without a mesh it is `function` itself.
    """
    sizes = free_axes()
    taken = len(sizes) < len(jax.sharding.get_abstract_mesh().axis_names)
    axes = tuple(a for a in RULES.rows + RULES.tokens if sizes.get(a, 1) > 1)
    if not axes or taken:
        return function

    def local(params, *arrays):
        return jax.lax.psum(function(params, *arrays), axes)

    def call(params, *arrays):
        whole = jax.tree.map(lambda x: P(*(None for _ in x.shape)), params)
        rows = P(*(tuple(a for a in kind if a in axes) for kind in (RULES.rows, RULES.tokens)))
        return jax.shard_map(
            local,
            in_specs=(whole, *(rows for _ in arrays)),
            out_specs=P(),
            axis_names=set(axes),
            check_vma=False,
        )(params, *arrays)

    return call


def _untuple(axes: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return axes[0] if len(axes) == 1 else axes or None


def _tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else axes
