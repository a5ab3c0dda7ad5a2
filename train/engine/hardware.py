"""Facts about devices: peak FLOPs and peak memory."""

from collections.abc import Mapping

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

PEAK_BANDWIDTH = {
    "TPU v4": 1228e9,
    "TPU v5 lite": 819e9,
    "TPU v5e": 819e9,
    "TPU v5": 2765e9,
    "TPU v5p": 2765e9,
    "TPU v6 lite": 1640e9,
    "TPU v6e": 1640e9,
    "TPU7x": 3690e9,  # of half a chip
    "NVIDIA A100": 2039e9,
    "NVIDIA L4": 300e9,
    "NVIDIA H100": 3352e9,
    "NVIDIA H200": 4800e9,
    "NVIDIA B200": 8000e9,
}
"""Bytes per second between a device and its own memory, from the same data sheets."""


def peak_of(kind: str, peaks: Mapping[str, float] = PEAK_FLOPS) -> float | None:
    """Return the peak of a kind of device, by default its FLOP/s; None for an unknown kind."""
    known = [name for name in peaks if kind.startswith(name)]
    return peaks[max(known, key=len)] if known else None


def peak_flops() -> float | None:
    """Return the bfloat16 FLOP/s of all devices together; None for an unknown kind."""
    peak = peak_of(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()


def peak_memory() -> int | None:
    """Return the peak memory in bytes of this process's devices; None where it is not reported."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    known = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return max(known, default=None)
