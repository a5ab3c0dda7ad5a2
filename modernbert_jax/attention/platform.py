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


def interpreted() -> bool:
    """Whether kernels have to be interpreted: on CPU, where they are only ever tested."""
    return device()[0] == "cpu"
