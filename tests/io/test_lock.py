"""Locks: one holder at a time, released by a kill, and nothing lost among many processes."""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from modernbert_jax import UserError
from modernbert_jax.io import lock

HOLD = """
import sys, time
from pathlib import Path
from modernbert_jax.io import lock

path = Path(sys.argv[1])
with lock.held(path / ".lock", path, patience=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""

COUNT = """
import sys, time
from pathlib import Path
from modernbert_jax.errors import UserError
from modernbert_jax.io import lock

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
refused = 0
for _ in range(rounds):
    try:
        with lock.held(folder / ".lock", folder, patience=0.0):
            count = int((folder / "count").read_text())
            time.sleep(0)
            (folder / "count").write_text(str(count + 1))
    except UserError:
        refused += 1
print(rounds - refused)
"""


def process(code, *words):
    words = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_second_is_refused_and_told_who_is_first(tmp_path):
    path = tmp_path / ".lock"
    with lock.held(path, tmp_path):
        match = rf"{tmp_path}: process {os.getpid()} on \S+, since .* UTC is writing here; wait"
        with pytest.raises(UserError, match=match), lock.held(path, tmp_path, patience=0):
            raise AssertionError
    assert not os.listdir(tmp_path)
    with lock.held(path, tmp_path, patience=0):
        pass


def test_a_kill_releases_the_lock(tmp_path):
    first = process(HOLD, tmp_path, 0)
    assert first.stdout.readline() == "held\n"
    second = process(HOLD, tmp_path, 0)
    _, error = second.communicate(timeout=60)
    assert second.returncode == 1 and f"process {first.pid} on " in error
    first.send_signal(signal.SIGKILL)  # not waited for: it may take a moment
    with lock.held(tmp_path / ".lock", tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()
    first.communicate()
    assert not os.listdir(tmp_path)


def test_removed_lock_files_lock_nothing(tmp_path):
    """One that opened the file before its holder removed it must not hold it with a third."""
    (tmp_path / "count").write_text("0")
    several = [process(COUNT, tmp_path, 150) for _ in range(3)]
    done = sum(int(p.communicate(timeout=60)[0]) for p in several)
    assert done >= 3 and (tmp_path / "count").read_text() == str(done)


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "kept")
    with pytest.raises(UserError, match="cannot be locked"), lock.held(tmp_path / ".lock", "x"):
        raise AssertionError
    assert (tmp_path / "kept").read_text() == "kept"


def test_other_content_names_nobody(tmp_path):
    with (tmp_path / ".lock").open("wb") as other:
        other.write(b"\xff\x1b[31m process")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match="x: another process is writing here"),
            lock.held(tmp_path / ".lock", "x", patience=0),
        ):
            raise AssertionError


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    lines = []
    with lock.held(tmp_path / ".lock", "run", say=lines.append):
        pass
    assert len(lines) == 1 and "run: this file system has no locks" in lines[0]


@pytest.mark.slow
def test_a_hundred_holders_at_random_distances(tmp_path):
    """Holders that are killed at any time, and others that wait for them: one at a time."""
    rng, path = random.Random(0), tmp_path / ".lock"
    for _ in range(100):
        first = process(HOLD, tmp_path, 0)
        time.sleep(rng.random() / 3)
        second = process(HOLD, tmp_path, 20)
        time.sleep(rng.random() / 3)
        first.kill()
        assert second.stdout.readline() == "held\n"
        assert f"process {second.pid} on " in path.read_text()
        for one in (first, second):
            one.kill()
            one.communicate()
