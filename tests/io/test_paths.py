"""Paths as users write them: names before patterns, `~`, hidden files and endings."""

import os
from pathlib import Path

import fsspec
import pytest

from modernbert_jax import UserError
from modernbert_jax.io.paths import FileType, file_type, files_below, matches


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current and home folder, with names that are patterns and hidden files."""
    for name in (
        *("train[v1].jsonl", "trainv.jsonl", "b.jsonl", ".hidden.jsonl"),
        *("proj [2]/x.jsonl", "proj [2]/._x.jsonl", "proj [2]/.ipynb_checkpoints/x.jsonl"),
        *("proj 2/y.jsonl", ".cache/z.jsonl"),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def paths(written) -> list[str]:
    return [match.path for match in matches(written)]


def test_a_name_that_exists_is_no_pattern(folder):
    assert paths("train[v1].jsonl") == ["train[v1].jsonl"]
    assert paths("train[v2].jsonl") == ["trainv.jsonl"]
    assert matches("proj [2]") == [("proj [2]", True)]
    assert paths("proj [2]/*.jsonl") == ["proj [2]/x.jsonl"]
    assert paths(f"{folder}/proj [2]/x.*") == [f"{folder}/proj [2]/x.jsonl"]
    assert paths("proj [123]/*.jsonl") == ["proj 2/y.jsonl"]
    assert paths(Path("proj*") / "**" / "*.jsonl") == ["proj 2/y.jsonl", "proj [2]/x.jsonl"]


@pytest.mark.parametrize("written", ["none.jsonl", "none*", "b[x", "", "\0", "n" * 5000, "gone"])
def test_nothing_of_that_name(folder, written):
    os.symlink("nowhere", "gone")
    with pytest.raises(UserError, match="no such file"):
        matches(written)


def test_pipes_cannot_be_read_twice(folder):
    os.mkfifo("pipe.jsonl")
    with pytest.raises(UserError, match="is a pipe or device"):
        matches("pipe.jsonl")


def test_tilde_is_the_home_folder(folder):
    assert paths("~/b.jsonl") == [f"{folder}/b.jsonl"]
    assert paths("~/train*") == [f"{folder}/train[v1].jsonl", f"{folder}/trainv.jsonl"]


def test_hidden_files_are_left_out_unless_named(folder):
    assert files_below("proj [2]") == ["proj [2]/x.jsonl"]
    assert files_below(".cache") == [".cache/z.jsonl"]
    assert paths("*.jsonl") == ["b.jsonl", "train[v1].jsonl", "trainv.jsonl"]
    assert paths(".*.jsonl") == [".hidden.jsonl"]
    assert paths(".cache/*") == [".cache/z.jsonl"]


def test_urls():
    memory = fsspec.filesystem("memory")
    for name in ("/b/a[1].txt", "/b/a1.txt", "/b/.a.txt", "/b/c [2]/d.txt", "/b/c [2]/.e/d.txt"):
        memory.pipe(name, b"x")
    assert paths("memory://b/a[1].txt") == ["memory:///b/a[1].txt"]
    assert paths("memory://b/a[12].txt") == ["memory:///b/a1.txt"]
    assert paths("memory://b/*.txt") == ["memory:///b/a1.txt", "memory:///b/a[1].txt"]
    assert paths("memory://b/c [2]/**/*.txt") == ["memory:///b/c [2]/d.txt"]
    assert paths("memory://b/.*.txt") == ["memory:///b/.a.txt"]
    assert files_below("memory://b/c [2]") == ["memory:///b/c [2]/d.txt"]
    memory.rm("/b", recursive=True)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.jsonl", ("jsonl", "")),
        ("A.JSONL", ("jsonl", "")),
        ("a.ndjson.XZ", ("jsonl", ".xz")),
        ("c4-train.00000-of-01024.json.gz", ("json", ".gz")),
        ("gs://b/x.y/part.Parquet", ("parquet", "")),
        ("a.csv.bz2", ("csv", ".bz2")),
        ("a.parquet.gz", ("unread", ".gz")),
        ("a.gz", ("unread", ".gz")),
        ("a.xlsx", ("unread", "")),
        ("a.py", ("unknown", "")),
        ("README", ("unknown", "")),
        (".jsonl", ("unknown", "")),
        ("folder.jsonl/README", ("unknown", "")),
    ],
)
def test_endings(name, wanted):
    assert file_type(name) == FileType(*wanted)
