"""What a name in a pickle stands for. No name is imported, and most are not known at all."""

from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np

from modernbert_jax.errors import UserError


class Storage(NamedTuple):
    """A run of numbers beside the pickle, by the key that names it."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage, in elements; it lies within."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """What stands for an object that is not made."""

    @staticmethod
    def made(*_: Any) -> "Inert":
        """Whatever would have been called."""
        return Inert()


class StorageType(NamedTuple):
    """What a storage is said to be made of."""

    dtype: np.dtype


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor's description, once it is known to lie within its storage."""
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise UserError("a pickle with a tensor that has no storage, shape or stride")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > 8:
        raise UserError(f"a pickle with a tensor of {len(shape)} axes and {len(stride)} strides")
    if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise UserError("a pickle with a tensor whose sizes make no sense")
    end, count = offset, 1
    for n, step in zip(shape, stride, strict=True):
        end, count = end + (n - 1) * step, count * n
    if 0 in shape:
        end = offset - 1
    # More elements than the storage has would be one number many times over.
    if end >= storage.size or count > storage.size:
        raise UserError(
            f"a pickle with a tensor {list(shape)} beyond its storage of {storage.size} elements"
        )
    return Tensor(storage, offset, shape, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    if type(data) is not Tensor:
        raise UserError("a pickle with a parameter that is no tensor")
    return data


def _mapping(*arguments: Any) -> dict:
    """Ordered and default dicts, which are pickled empty and filled afterwards."""
    return {}


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise UserError("a pickle that encodes something else than latin1")
    return text.encode("latin1")


def _size(sizes: Any = ()) -> tuple:
    if type(sizes) is not tuple:
        raise UserError("a pickle with a size that is no tuple")
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
"""Every name of which something is made, and what makes it."""

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
"""Names of a training run's state: clocks, random numbers, metrics. They are not even imported."""
