"""Facts of the device for which a program is being traced."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_TRACED_FOR = contextvars.ContextVar[str | None]("_TRACED_FOR", default=None)
"""Platform that `traced_for` names."""


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Trace the programs of a block for a platform, which need not be attached.

    Functions have to be traced anew in the block: jax does not know that the platform matters.

    Args:
        platform: "cpu", "gpu" or "tpu".
    """
    token = _TRACED_FOR.set(platform)
    try:
        yield
    finally:
        _TRACED_FOR.reset(token)


def device() -> tuple[str, str]:
    """Platform ("cpu", "gpu" or "tpu") and kind of the device that is compiled for.

    Under a mesh that is the mesh's device, which need not be on this machine; else it is jax's
    default device. `traced_for` comes before both.
    """
    if (platform := _TRACED_FOR.get()) is not None:
        return platform, platform
    target = jax.sharding.get_abstract_mesh().abstract_device
    if target is not None:
        return target.platform, target.device_kind
    return jax.default_backend(), jax.devices()[0].device_kind


def capability() -> tuple[int, int] | None:
    """Compute capability of the device that is compiled for, if it is jax's default device."""
    elsewhere = jax.sharding.get_abstract_mesh().abstract_device is not None
    if elsewhere or _TRACED_FOR.get() is not None:
        return None
    version = getattr(jax.devices()[0], "compute_capability", None)
    if not version:
        return None
    major, minor = str(version).split(".")
    return int(major), int(minor)


def precision(dtype: jax.typing.DTypeLike) -> jax.lax.Precision | None:
    """Precision of products in kernels: full float32 for float32 operands.

    By default TPUs would round such operands to bfloat16, and GPUs to ten bits.
    """
    return jax.lax.Precision.HIGHEST if dtype == "float32" else None


def interpreted() -> bool:
    """Whether kernels are interpreted, as on CPU in tests."""
    return device()[0] == "cpu"
