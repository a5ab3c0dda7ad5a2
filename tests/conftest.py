"""Puts `tests/support` on the path: builders that tests, goldens and live comparisons share."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))


def pytest_configure(config: pytest.Config) -> None:
    """All processes of a session share compiled programs, and touch no cache of the user's.

    This process has one CPU device, whatever commands run in it: `--cpu-devices 0` leaves alone
    what is configured.
    """
    if not hasattr(config, "workerinput"):
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
        config.add_cleanup(lambda: shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True))
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", 1)


LONGEST = ("test_command.py", "test_mesh.py", "test_coupled.py", "test_pretrain.py")
"""Modules that take a minute or more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first, so that no worker waits for another one's at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def full_disk() -> Iterator[Callable[[bool], None]]:
    """While it was last called with True, files cannot grow: what a full disk is to them."""
    resource = pytest.importorskip("resource")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(is_full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 if is_full else soft, hard))

    yield full
    full(False)
    signal.signal(signal.SIGXFSZ, before)
