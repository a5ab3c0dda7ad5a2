"""Freed host memory stays in the process."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from modernbert_jax.io.host_memory import commits_strictly

FAULTS = """
import resource, sys, threading
import numpy as np
from modernbert_jax.io.host_memory import keep_freed_on_cpu

def step():
    np.ones(25_000_000, np.float32)

def faults():
    thread = threading.Thread(target=step)  # with an arena of its own, as a backend's have
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_on_cpu()
faults()
print(faults() * resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it speaks to glibc")
@pytest.mark.parametrize(
    ("kept", "platforms", "mapped_again"),
    [("keep", "cpu", False), ("leave", "cpu", True), ("keep", "cuda,cpu", True)],
)
def test_freed_memory_is_mapped_once(kept, platforms, mapped_again):
    # Huge pages would hide the faults.
    script = (
        f"import jax; jax.config.update('jax_platforms', {platforms!r})\n"
        "import ctypes; ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)\n" + FAULTS
    )
    run = [sys.executable, "-c", script, kept]
    process = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (int(process.stdout) > 90_000_000) == mapped_again


def huge_pages_on_request() -> bool:
    try:
        modes = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False
    return "[madvise]" in modes and not commits_strictly()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it speaks to glibc")
@pytest.mark.skipif(not huge_pages_on_request(), reason="the kernel gives all or none huge pages")
def test_buffers_lie_in_huge_pages():
    script = """
import re, threading
import numpy as np
from modernbert_jax.io.host_memory import keep_freed

def kilobytes(what):
    with open("/proc/self/smaps_rollup") as file:
        return int(re.search(rf"^{what}: +([0-9]+) kB", file.read(), re.M)[1])

keep_freed()
used = kilobytes("Rss")
thread = threading.Thread(target=lambda: kept.append(np.ones(50_000_000, np.float32)))
kept = []
thread.start()
thread.join()
print(used, kilobytes("AnonHugePages"))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    used, huge = map(int, run.stdout.split())
    assert used < 200_000, "the addresses asked for count as memory"
    assert huge > 100_000, "most of 200 MB, as far as the kernel has huge pages free"
