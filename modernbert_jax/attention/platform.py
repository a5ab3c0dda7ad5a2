"""What the program being traced will run on."""

import jax


def device() -> tuple[str, str]:
    """Platform ("cpu", "gpu" or "tpu") and kind of the device that is being compiled for.

    Under a mesh that is the mesh's device, which need not exist on this machine; without one it is
    jax's default device.
    """
    there = jax.sharding.get_abstract_mesh().abstract_device
    if there is not None:
        return there.platform, there.device_kind
    return jax.default_backend(), jax.devices()[0].device_kind


def capability() -> tuple[int, int] | None:
    """Compute capability of jax's default device, if it is what is compiled for and has one."""
    if jax.sharding.get_abstract_mesh().abstract_device is not None:
        return None
    version = getattr(jax.devices()[0], "compute_capability", None)
    if not version:
        return None
    major, minor = str(version).split(".")
    return int(major), int(minor)


def precision(dtype: jax.typing.DTypeLike) -> jax.lax.Precision | None:
    """For products of attention: float32 stays float32, where accelerators would round operands.

    By default TPUs round them to bfloat16 and GPUs to ten bits.
    """
    return jax.lax.Precision.HIGHEST if dtype == "float32" else None


def interpreted() -> bool:
    """Whether kernels have to be interpreted: on CPU, where they are only ever tested."""
    return device()[0] == "cpu"
