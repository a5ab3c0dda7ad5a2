"""Sharding of arrays on a mesh of devices: one table for parameters, one for activations.

A mesh has four axes. Rows of a batch are divided over `data` and `fsdp`, tokens of a row over
`context`. Parameters are replicated over `data` and `context`. Over `fsdp` each device stores a
piece of them and gathers a layer when it is used. Over `tensor` devices compute with the pieces:
heads, feed-forward units and vocabulary are divided among them.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax import quantization, ranges
from modernbert_jax.errors import UserError

AXES = ("data", "fsdp", "context", "tensor")
ROW_AXES = ("data", "fsdp")
COPY_AXIS = "data"
"""Axis whose devices divide rows and have equal pieces of the parameters."""

Axis = Annotated[int, ranges.Range(1, ranges.INT32, below=True, also=-1)]
"""Devices along an axis of the mesh; -1 is the rest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Number of devices along each axis; at most one is -1, for all remaining devices."""

    data: Axis = -1
    """Divides rows; every device has a copy of the parameters."""
    fsdp: Axis = 1
    """Divides rows; every device has a piece of the parameters and the optimizer's moments."""
    context: Axis = 1
    """Divides the tokens of a row."""
    tensor: Axis = 1
    """Divides heads, feed-forward units and vocabulary."""

    def __post_init__(self):
        ranges.check(self, "mesh.")
        if sum(getattr(self, axis) == -1 for axis in AXES) > 1:
            raise UserError("mesh: only one axis can be -1")

    def sizes(self, devices: int) -> tuple[int, ...]:
        """Sizes of `AXES` for a number of devices. Raises `UserError` if they do not fit."""
        sizes = [getattr(self, axis) for axis in AXES]
        fixed = math.prod(size for size in sizes if size != -1)
        if devices % fixed or (-1 not in sizes and fixed != devices):
            shape = ", ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
            raise UserError(f"mesh ({shape}) does not fit {devices} devices; set an axis to -1")
        return tuple(devices // fixed if size == -1 else size for size in sizes)

    def make(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """The mesh over some devices, by default all of them, with near ones adjacent.

        Only `data` crosses the data centre network between several TPU slices.
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
    """Mesh axes of each kind of dimension; kinds within one array must not share an axis."""

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
            raise ValueError(f"dimensions {kinds} use the same mesh axis twice: {used}")
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
    (r"(norm|\w+_norm|layer_norm_\d+)/(scale|bias)", (None,)),
    (r"head/dense/kernel", ("embed", None)),
    (r"head/dense/bias", (None,)),
    (r"decoder/linear/kernel", ("embed", "vocab")),
    (r"decoder/bias", ("vocab",)),
    (r"classifier/kernel", ("embed", None)),
    (r"classifier/bias", (None,)),
    (r"dense_\d+/(linear|residual)/kernel", ("embed", None)),
    (r"dense_\d+/linear/bias", (None,)),
)
"""Suffixes of parameter paths, as regular expressions, and the kinds of the dimensions. Each path
matches one row."""

STACKED = "groups"
"""Key of parameters that are stacked over groups of layers on their first axis."""


def parameter_spec(path: str, shape: tuple[int, ...], sizes: dict[str, int]) -> P:
    """Specification of a parameter, or of a moment of one, on a mesh of some axis sizes.

    An axis that does not divide its dimension evenly is left out.

    Raises:
        ValueError: a path that does not match exactly one rule, or a shape that does not fit it.
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
    """Sharding of every leaf of a tree of parameters, or of a state that contains such trees.

    The suffix of a leaf's path names the parameter. Leaves of a state that are not parameters, such
    as counters, are replicated.
    """
    sizes = dict(mesh.shape)

    def leaf(path, x):
        name = _name(path)
        rule = parameter_spec(name, x.shape, sizes) if _is_parameter(name) else P()
        return NamedSharding(mesh, rule)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def _name(path: Sequence[Any]) -> str:
    """Path of a leaf, from its keys in a tree."""
    keys = [getattr(key, "key", getattr(key, "name", None)) for key in path]
    return "/".join(key for key in keys if isinstance(key, str))


def _is_parameter(name: str) -> bool:
    return any(re.search(rf"(^|/){ending}$", name) for ending, _ in PARAMETERS)


def placed(params: Any, mesh: Mesh, weights: quantization.Weights = "float32") -> Any:
    """A tree of parameters on the devices of a mesh.

    One after the other: an array that is read from a file is in memory only while it is copied.

    Args:
        params: the tree.
        mesh: the devices.
        weights: type in which matrices are stored; see `quantization`.
    """
    sizes = dict(mesh.shape)

    def place(path, x):
        name = _name(path)

        def put(part):
            rule = parameter_spec(name, part.shape, sizes) if _is_parameter(name) else P()
            return jax.device_put(part, NamedSharding(mesh, rule))

        return jax.tree.map(put, quantization.stored(name, x, weights))

    return jax.tree_util.tree_map_with_path(place, params)


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of the arrays [B, T] of a batch."""
    return NamedSharding(mesh, RULES.spec("rows", "tokens"))


def global_array(
    x: np.ndarray, sharding: jax.sharding.Sharding, rows: int | None = None, first: int = 0
) -> jax.Array:
    """Build an array over the devices of all processes from what this process has of it.

    Args:
        x: The whole array, or some rows of it, [R, ...].
        sharding: Where its pieces go.
        rows: Number of rows of the whole array; None where `x` is the whole array.
        first: Number of the first row in `x`.
    """
    shape = np.shape(x) if rows is None else (rows, *np.shape(x)[1:])

    def piece(at: tuple[slice, ...] | None) -> np.ndarray:
        if not at:
            return np.asarray(x)
        start, stop, _ = at[0].indices(shape[0])
        return np.asarray(x)[(slice(start - first, stop - first), *at[1:])]

    return jax.make_array_from_callback(shape, sharding, piece)


def row_pieces(sizes: Mapping[str, int]) -> int:
    """Number of pieces into which a mesh of some axis sizes divides the rows of a batch."""
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
    """Axes of the current mesh with their sizes, without those of a surrounding `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return {
        axis: size
        for axis, kind, size in zip(mesh.axis_names, mesh.axis_types, mesh.axis_sizes, strict=True)
        if kind != AxisType.Manual
    }


def divides_only_rows() -> bool:
    """Whether the current mesh divides nothing of hidden states [B, T, D] but their rows."""
    return all(size == 1 for axis, size in free_axes().items() if axis not in RULES.rows)


def constrain(x: jax.Array, *kinds: str | None) -> jax.Array:
    """Constrain the sharding of `x` on the current mesh by the kinds of its dimensions.

    A dimension that its axes do not divide evenly is replicated. Axes of a surrounding `shard_map`
    are left out. Without a mesh it is the identity.
    """
    if not free_axes():
        return x
    return jax.lax.with_sharding_constraint(x, _even(x.shape, kinds))


def on_each_device(function: Callable[[Any], Any], arrays: Any) -> Any:
    """`function(arrays)` of arrays [B, T, ...], on each device's own rows and tokens.

    For elementwise functions; devices do not communicate. All arrays have the same B and T.
    """
    sizes = free_axes()
    if math.prod(sizes.values()) == 1:
        return function(arrays)
    own = _even(jax.tree.leaves(arrays)[0].shape[:2], ("rows", "tokens"))
    return jax.shard_map(
        function, in_specs=(own,), out_specs=own, axis_names=set(sizes), check_vma=False
    )(arrays)


def _even(shape: Sequence[int], kinds: Sequence[str | None]) -> P:
    """Specification of dimensions of some kinds, divided where that is even."""
    sizes, spec = free_axes(), []
    for axes, size in zip(RULES.spec(*kinds), shape, strict=True):
        free = tuple(axis for axis in _tuple(axes) if axis in sizes)
        even = size % math.prod(sizes[axis] for axis in free) == 0
        spec.append(free if free and even else None)
    return P(*spec)


def over_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(params, *arrays)` on each device's own rows and tokens, with summed results.

    Gradients of the parameters are summed on each device and exchanged once at the end, where the
    compiler alone would exchange them in every iteration of a loop. `arrays` are [B, T, ...],
    results a tree of sums over rows and tokens. Without a mesh it is `function` itself.
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


def on_each_copy(function: Callable[..., Any], whole: Any, rows: Any, *, summed: bool) -> Any:
    """`function(whole, rows)` on each part of the mesh that has a copy of the parameters.

    Parts do not communicate before the end: gradients that a loop adds up are exchanged once.

    Args:
        function: sums over rows, or arrays [A, B, ...] of the rows.
        whole: tree of arrays that every part reads as they are, such as parameters.
        rows: tree of arrays [A, B, ...], whose rows B are divided, and [A], which are not.
        summed: whether the results are summed over the parts.
    """
    copies = free_axes().get(COPY_AXIS, 1)

    def spec(x):
        return P(None, COPY_AXIS) if x.ndim > 1 else P()

    leaves = jax.tree.leaves(rows)
    if copies == 1 or any(x.shape[1] % copies for x in leaves if x.ndim > 1):
        return function(whole, rows)

    def local(whole, rows):
        result = function(whole, rows)
        return jax.lax.psum(result, COPY_AXIS) if summed else result

    return jax.shard_map(
        local,
        in_specs=(P(), jax.tree.map(spec, rows)),
        out_specs=P() if summed else P(None, COPY_AXIS),
        axis_names={COPY_AXIS},
        check_vma=False,
    )(whole, rows)


def _untuple(axes: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return axes[0] if len(axes) == 1 else axes or None


def _tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else axes
