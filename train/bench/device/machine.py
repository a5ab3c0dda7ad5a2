"""Facts of the device, the machine and its software."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .registry import Part
from .results import Result
from .scale import Scale

PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "libtpu",
    "flax",
    "optax",
    "numpy",
    "torch",
    "triton",
    "transformers",
    "flash-attn",
)
"""Distributions whose versions are recorded."""

COMMIT = Path(__file__).with_name("commit.txt")
"""Commit of an archive; git fills it in (`export-subst`)."""

UNKNOWN = Scale(platform="cpu", device_kind="")
"""Before the device is known."""


def device(_: Scale) -> Iterator[Result]:
    """The device as jax sees it: the one part that every other one waits for."""
    import jax

    first = jax.devices()[0]
    stats = first.memory_stats() or {}
    client = first.client
    yield Result(
        name="device",
        labels={
            "platform": jax.default_backend(),
            "device_kind": first.device_kind,
            "devices": str(jax.local_device_count()),
            "memory": str(stats.get("bytes_limit", 0)),
            "runtime": " ".join(str(client.platform_version).split())[:200],
        },
    )


DEVICE = Part(name="device", group="machine", function=device, seconds=60.0)


def facts(device: dict[str, str]) -> dict[str, Any]:
    """Everything about where a run took place, as a JSON object."""
    kind = device["device_kind"]
    return {
        "device": processor() if device["platform"] == "cpu" else kind,
        "platform": device["platform"],
        "devices": int(device["devices"]),
        "memory_bytes": int(device["memory"]),
        "driver": driver(),
        "runtime": device["runtime"],
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
    }


def versions() -> dict[str, str]:
    """Versions of those of `PACKAGES` that are installed."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def driver() -> str:
    """Version of NVIDIA's driver, or ""."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = _output(command).splitlines()
    return lines[0].strip() if lines else ""


def commit() -> str:
    """Commit of this code, with "+" if files differ from it; "" if nothing tells."""
    if stated := os.environ.get("MODERNBERT_JAX_COMMIT"):
        return stated
    stamped = COMMIT.read_text().strip()
    if not stamped.startswith("$"):
        return stamped[:12]
    git = ["git", "-C", str(Path(__file__).parent)]
    head = _output([*git, "rev-parse", "--short=12", "HEAD"]).strip()
    changed = _output([*git, "status", "--porcelain", "--untracked-files=no"]).strip()
    return head + ("+" if head and changed else "")


def processor() -> str:
    """Name of the CPU and its cores, so that no CPU is taken for an accelerator."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"CPU, {name}, {os.cpu_count()} cores"


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
