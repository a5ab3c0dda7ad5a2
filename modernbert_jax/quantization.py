"""Weights in fewer bits for inference: bfloat16, or int8 with a scale for each channel.

Only matrices are stored in them: kernels, and the embedding table, which are nearly all of a model.
Norms and biases stay float32. A matrix becomes floating point again where it is used, so that
activations and products are those of `Runtime.dtype`.

int8 is symmetric: w = value * scale, with the scale max|w| / 127 of the channel. Channels of a
kernel are its outputs, those of the embedding table its ids.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

Weights = Literal["float32", "bfloat16", "int8"]
"""Types in which the matrices of a model can be stored."""

CHANNEL_AXES = {"kernel": -2, "embedding": -1}
"""Axis over which a channel's largest weight is taken, by the name of a matrix."""

_LARGEST = 127
"""Largest value of int8; -128 is not used, so that the range is symmetric."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """A matrix as int8, which behaves as an array of float32 where a module reads it."""

    values: Any
    """int8 [..., D, E]."""
    scales: Any
    """float32, with a length of 1 on the axis that `CHANNEL_AXES` names."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix."""
        return self.values.shape

    @property
    def T(self) -> "Int8":
        """The transposed matrix."""
        return Int8(self.values.T, self.scales.T)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> jax.Array:
        """Rows of the matrix as float32."""
        return self.values[index].astype(jnp.float32) * self.scales[index]

    def astype(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """The whole matrix in a floating-point dtype."""
        return (self.values.astype(jnp.float32) * self.scales).astype(dtype)


def stored(name: str, x: np.ndarray, weights: Weights) -> np.ndarray | Int8:
    """A parameter in the form in which it is stored.

    Args:
        name: path of the parameter; its last part says what it is.
        x: the parameter in host memory.
        weights: type of the matrices.
    """
    axis = CHANNEL_AXES.get(name.rpartition("/")[2])
    if axis is None or weights == "float32":
        return np.asarray(x, np.float32)
    if weights == "bfloat16":
        return np.asarray(x).astype(ml_dtypes.bfloat16)
    x = np.asarray(x, np.float32)
    scales = np.abs(x).max(axis, keepdims=True) / np.float32(_LARGEST)
    values = np.rint(x / np.where(scales == 0, np.float32(1), scales))
    return Int8(values.astype(np.int8), scales)


def nbytes(params: Any) -> int:
    """Bytes of a tree of stored parameters."""
    return sum(x.nbytes for x in jax.tree.leaves(params))
