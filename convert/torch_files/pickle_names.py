"""Names that a pickle may contain, and what they build. None of them is imported."""

from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np

from modernbert_jax.errors import UserError


class Storage(NamedTuple):
    """An array of numbers outside the pickle: its key, dtype and number of elements."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage, in elements, inside its bounds."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """Placeholder of an object that is not built."""

    @staticmethod
    def build(*_: Any) -> "Inert":
        """A placeholder, whatever the arguments."""
        return Inert()


class StorageType(NamedTuple):
    """Dtype of a storage, as its class in torch declares it."""

    dtype: np.dtype


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """The description of a tensor, checked to be inside its storage."""
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise UserError("a pickle with a tensor that has no storage, shape or stride")
    if len(shape) != len(stride) or len(shape) > 8:
        raise UserError(f"a pickle with a tensor of {len(shape)} axes and {len(stride)} strides")
    numbers = (offset, *shape, *stride)
    if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise UserError("a pickle with a tensor whose sizes make no sense")
    end, count = offset, 1
    for n, step in zip(shape, stride, strict=True):
        end, count = end + (n - 1) * step, count * n
    if 0 in shape:
        end = offset - 1
    # More elements than the storage has would repeat numbers without a bound.
    if end >= storage.size or count > storage.size:
        raise UserError(
            f"a pickle with a tensor {list(shape)} beyond its storage of {storage.size} elements"
        )
    return Tensor(storage, offset, shape, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    if type(data) is not Tensor:
        raise UserError("a pickle with a parameter that is not a tensor")
    return data


def _mapping(*_: Any) -> dict[Any, Any]:
    """An empty dict for ordered and default dicts, which a pickle fills afterwards."""
    return {}


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise UserError("a pickle that encodes something other than latin1")
    return text.encode("latin1")


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise UserError("a pickle with a size that is not a tuple")
    return sizes


_DTYPES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}

BUILDERS: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "_codecs.encode": _encoded,
    **{f"torch.{name}Storage": StorageType(np.dtype(d)) for name, d in _DTYPES.items()},
}
"""Every name that builds something, with its builder."""

HARMLESS = {
    "__builtin__.bytearray",
    "__builtin__.complex",
    "__builtin__.frozenset",
    "__builtin__.list",
    "__builtin__.set",
    "__builtin__.slice",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "torch.torch_version.TorchVersion",
    *(f"torch.{name}" for name in ("float32", "float16", "bfloat16", "float64", "int64", "bool")),
}
HARMLESS_PACKAGES = ("composer", "torchmetrics")
"""Packages in the state of a training run. Harmless names give an `Inert` placeholder."""
