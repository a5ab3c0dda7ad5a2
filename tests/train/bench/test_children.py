"""Children of a benchmark end with it, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from modernbert_jax.train.bench import children

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

PARENT = """
import sys
from modernbert_jax.train.bench import children
with children.child(sys.argv[1:]) as process:
    print(process.pid, flush=True)
    process.wait()
"""


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_to_the_benchmark_ends_its_child(number, code):
    command = [sys.executable, "-P", "-c", PARENT, *SLEEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.send_signal(number)
        parent.communicate(timeout=60)
    assert parent.returncode == code
    assert not is_running(child)


def test_a_child_ends_with_its_block_and_the_signal_is_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="why"), children.child(SLEEP) as process:
        assert signal.getsignal(signal.SIGTERM) != before
        raise ValueError("why")
    assert process.returncode == -signal.SIGKILL
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_child_with_a_grace_ends_by_itself():
    catches = "import signal, sys; signal.signal(15, lambda *_: sys.exit(3)); print(1, flush=True)"
    command = [sys.executable, "-c", f"{catches}; signal.pause()"]
    began = time.monotonic()
    with children.child(command, grace=60, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n"
    assert process.returncode == 3 and time.monotonic() - began < 30
