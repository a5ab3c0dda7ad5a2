import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
import numpy as np
from modernbert_jax.host_memory import keep_freed_on_cpu

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
    found = subprocess.run(run, capture_output=True, text=True, check=True)
    assert (int(found.stdout) > 90_000_000) == mapped_again
