"""Facts about devices: peak FLOPs and peak memory."""

import jax

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,  # half a chip, which jax shows as a device
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}
"""Dense bfloat16 FLOP/s by the start of the device kind, from the manufacturers' data sheets."""


def peak_of(kind: str) -> float | None:
    """Return the bfloat16 FLOP/s of a kind of device; None for an unknown kind."""
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def peak_flops() -> float | None:
    """Return the bfloat16 FLOP/s of all devices together; None for an unknown kind."""
    peak = peak_of(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()


def peak_memory() -> int | None:
    """Return the peak memory in bytes of this process's devices; None where it is not reported."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    known = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return max(known, default=None)
