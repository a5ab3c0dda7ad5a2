"""Made-up runs of a made-up device, as `bench device` would record them."""

from typing import Any

from modernbert_jax.train.bench.device import history
from modernbert_jax.train.bench.device.results import Number, Result

FACTS = {
    "device": "Chip 9000 (PCIe)",
    "platform": "gpu",
    "devices": 1,
    "memory_bytes": 80 * 10**9,
    "driver": "1.2",
    "runtime": "cuda 13",
    "system": "Linux x86_64",
    "cores": 16,
    "python": "3.12.3",
    "versions": {"jax": "0.11.2"},
    "commit": "abc",
    "date": "2026-01-02 03:04",
}


def run(
    date: str = "2026-01-02 03:04", forward: float = 1.0, speed: float = 100.0, status: str = "ok"
) -> dict[str, Any]:
    numbers = {"forward": Number(forward, "ms"), "rate": Number(1 / forward, "TFLOP/s")}
    results = [
        Result(name="full", group="kernels", labels={"layer": "full"}, numbers=numbers),
        Result(
            name="base",
            group="training",
            status=status,
            labels={"model": "base"},
            numbers={"speed": Number(speed, "tokens/s")},
            note="" if status == "ok" else "ValueError: a | b",
        ),
    ]
    return history.record(FACTS | {"date": date}, results, 12.34, 8.0)
