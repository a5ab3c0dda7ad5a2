"""What devices can do, and what they have held."""

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
    "TPU7x": 1153.5e12,  # of half a chip, which is what jax shows as a device
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}
"""Dense bfloat16 operations per second, from the makers' data sheets, by start of device kind."""


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
    """The peak of a kind of device in a table, by default of FLOPs; None where it is not known."""
    known = [name for name in peaks if kind.startswith(name)]
    return peaks[max(known, key=len)] if known else None


def peak_flops() -> float | None:
    """Bfloat16 operations per second of all devices; None where the kind is not known."""
    peak = peak_of(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()


def peak_memory() -> int | None:
    """The most bytes that any device of this process has held; None where it is not told."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    known = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return max(known, default=None)
