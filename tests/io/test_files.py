"""Whole files and directories: what is left behind, links, and two writers of one place."""

import os
import socket

import pytest

from modernbert_jax import UserError
from modernbert_jax.io import files

DEAD = 2**22 + 1
"""Larger than the number of any process."""


def temporary(path, process):
    return path.with_name(f".{path.name}.{socket.gethostname()}-{process}.tmp")


@pytest.mark.parametrize("process", [DEAD, 2**80, os.getpid()], ids=["dead", "huge", "own"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_leftovers_of_dead_processes_are_removed(tmp_path, kind, process):
    """A link is removed, and not followed: neither to be emptied, nor to be written through."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    left = temporary(tmp_path / "out", process)
    if kind == "link":
        left.symlink_to(kept)
    elif kind == "folder":
        left.mkdir()
        (left / "file").write_text("old")
    else:
        left.write_text("old")
    with files.whole_directory(tmp_path / "out") as folder:
        (folder / "file").write_text("new")
    (tmp_path / "out" / "file").unlink()
    (tmp_path / "out").rmdir()
    left.symlink_to(kept / "file")
    files.write_bytes(tmp_path / "out", b"new")
    assert (tmp_path / "out").read_bytes() == b"new" and (kept / "file").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == ["kept", "out"]


@pytest.mark.parametrize("writer", [files.whole_directory, files.whole_file])
def test_the_second_writer_of_a_place_leaves_nothing(tmp_path, writer):
    path = tmp_path / "out"
    options = {"new": True} if writer is files.whole_file else {}
    with pytest.raises(UserError, match="out: exists; another process"):  # noqa: SIM117
        with writer(path, **options) as late:
            late = late / "content" if late.is_dir() else late
            late.write_text("late")
            first = path / "content" if late.parent != tmp_path else path
            first.parent.mkdir(exist_ok=True)
            first.write_text("first")
    assert first.read_text() == "first" and os.listdir(tmp_path) == ["out"]
