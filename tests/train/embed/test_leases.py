"""Leases: one holder at a time, and those of dead or silent processes end."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modernbert_jax.train.embed import leases as module
from modernbert_jax.train.embed.leases import Leases


def test_one_holder_at_a_time(tmp_path):
    with Leases(tmp_path / "leases", 60) as ours, Leases(tmp_path / "leases", 60) as theirs:
        with ours.taken("a") as got:
            assert got
            with theirs.taken("a") as again, theirs.taken("b") as other:
                assert not again and other
        with theirs.taken("a") as got:
            assert got
    assert not (tmp_path / "leases").exists()


def test_many_threads_and_one_lease(tmp_path):
    with Leases(tmp_path / "leases", 60) as leases:
        barrier, holders = threading.Barrier(8), []

        def attempt():
            barrier.wait()
            with leases.taken("a") as got:
                holders.append(got)
                barrier.wait()

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(holders) == 1


def hold(folder, **changes):
    """Leave the lease of another process, which is gone, behind."""
    script = (
        "import sys, os; from pathlib import Path; from modernbert_jax.train.embed.leases import *;"
        "lease = Leases(Path(sys.argv[1]), 60).taken('a'); lease.__enter__(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, folder], check=True)
    path = folder / "a"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_the_lease_of_a_process_that_is_gone_ends_at_once(tmp_path):
    hold(tmp_path)
    with Leases(tmp_path, 60) as leases, leases.taken("a") as got:
        assert got


@pytest.mark.parametrize("elsewhere", ({"machine": "another"}, {"host": "another"}))
def test_the_lease_of_another_host_ends_when_it_was_not_renewed(tmp_path, elsewhere):
    path = hold(tmp_path, **elsewhere)
    with Leases(tmp_path, 60) as leases:
        with leases.taken("a") as got:
            assert not got
        os.utime(path, (time.time() - 61, time.time() - 61))
        with leases.taken("a") as got:
            assert got


def test_a_number_that_another_process_has_by_now(tmp_path):
    hold(tmp_path, process=os.getpid(), began="1")
    with Leases(tmp_path, 60) as leases, leases.taken("a") as got:
        assert got


@pytest.mark.parametrize("content", ("", "{", "[]", '{"process": "x"}'))
def test_what_is_no_lease_ends_by_its_time_only(tmp_path, content):
    (tmp_path / "a").write_text(content)
    with Leases(tmp_path, 60) as leases:
        with leases.taken("a") as got:
            assert not got
        os.utime(tmp_path / "a", (0, 0))
        with leases.taken("a") as got:
            assert got


def test_leases_are_renewed(tmp_path):
    with Leases(tmp_path, 0.2) as leases, leases.taken("a"):
        os.utime(tmp_path / "a", (0, 0))
        end = time.monotonic() + 20
        while (tmp_path / "a").stat().st_mtime < time.time() - 10:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links")

    monkeypatch.setattr(module.os, "link", refuse)
    with Leases(tmp_path, 60) as leases, leases.taken("a") as got:
        assert got and json.loads((tmp_path / "a").read_text())["process"] == os.getpid()
        with leases.taken("a") as again:
            assert not again
    assert not tmp_path.exists()  # nothing was left in it


def test_a_process_that_ends_may_remove_the_folder_meanwhile(tmp_path, monkeypatch):
    """Another process, whose last lease is gone, removes the folder that was just made."""
    mkdir, left = Path.mkdir, [2]

    def made_and_removed(path, *args, **options):
        mkdir(path, *args, **options)
        if left[0]:
            left[0] -= 1
            path.rmdir()

    with Leases(tmp_path / "leases", 60) as own:
        monkeypatch.setattr(Path, "mkdir", made_and_removed)
        with own.taken("a") as got:
            assert got and left == [0]
