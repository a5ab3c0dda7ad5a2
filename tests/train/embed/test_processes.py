"""Processes of the program that share a folder: the same bytes for any number, killed anywhere."""

import os
import random
import signal
import time
from pathlib import Path

import embedding
import models
import pytest
import whole_program

COUNT = 200
FLAGS = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count="


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and an input in a file that can only be read from its start."""
    folder = tmp_path_factory.mktemp("processes")
    models.write("mean", folder / "model")
    embedding.write_jsonl(folder / "x.jsonl.zst", embedding.records(COUNT))
    return folder


def start(folder: Path, output: str, devices: int = 1, **options: str):
    words = ["embed", "--model", "model", "--input", "x.jsonl.zst", "--output", output]
    own = {"shard-texts": "10", "window-tokens": "256", "batch-tokens": "128", **options}
    words += [word for name, value in own.items() for word in (f"--{name}", value)]
    return whole_program.start(folder, *words, XLA_FLAGS=f"{FLAGS}{devices}")


def finish(processes) -> list[str]:
    results = [whole_program.ended(process) for process in processes]
    assert [result.code for result in results] == [0] * len(results), results
    return [result.out for result in results]


@pytest.fixture(scope="module")
def whole(folder):
    """The output of one process, undisturbed."""
    (said,) = finish([start(folder, "whole")])
    assert f"whole: {COUNT} texts" in said
    return embedding.digests(folder / "whole")


def kill_after(folder: Path, process, shards: int) -> None:
    """Kill a process when so many shards are written; fail if it ends before."""
    end = time.monotonic() + 900
    while len([*folder.glob("shard-*.json")]) < shards:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_killed_and_finished_by_two_processes(folder, whole):
    """One process is killed, two with different numbers of devices finish, and one more joins."""
    killed = start(folder, "two")
    kill_after(folder / "two", killed, 3)
    kept = {p: p.stat().st_mtime_ns for p in (folder / "two").glob("shard-*.json")}
    assert 3 <= len(kept) < COUNT // 10
    finish([start(folder, "two"), start(folder, "two", devices=2)])
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert embedding.digests(folder / "two") == whole


@pytest.mark.slow
@pytest.mark.parametrize("count", (2, 3))
def test_any_number_of_processes(folder, whole, count):
    name = f"together-{count}"
    said = finish([start(folder, name, devices=1 + i) for i in range(count)])
    assert all(f"{name}: {COUNT} texts" in out for out in said)  # each waits for all shards
    assert embedding.digests(folder / name) == whole


@pytest.mark.slow
@pytest.mark.parametrize("count", (1, 3))
def test_killed_at_any_moment_again_and_again(folder, whole, count):
    """Some of the processes are killed at random moments and started again, until one is done."""
    name, rng, kills = f"killed-{count}", random.Random(count), 0
    running = [start(folder, name) for _ in range(count)]
    while kills < 12 and all(process.poll() is None for process in running):
        time.sleep(rng.uniform(0, 6))
        number = rng.randrange(count)
        running[number].kill()
        running[number].communicate()
        kills += 1
        running[number] = start(folder, name)
    finish(running)
    assert kills > 2
    assert embedding.digests(folder / name) == whole


@pytest.mark.slow
def test_the_shard_of_a_silent_host_is_taken_over(folder, whole):
    """A process that is stopped, as if its host were gone, loses its shard, and does no harm."""
    silent = start(folder, "silent", **{"lease-seconds": "3"})
    try:
        end = time.monotonic() + 900
        while not [*(folder / "silent").glob("shard-*.json")]:
            assert silent.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        os.kill(silent.pid, signal.SIGSTOP)
        (said,) = finish([start(folder, "silent", **{"lease-seconds": "3"})])
        assert f"{COUNT} texts" in said
        os.kill(silent.pid, signal.SIGCONT)
        finish([silent])
    finally:
        silent.kill()
    assert embedding.digests(folder / "silent") == whole
