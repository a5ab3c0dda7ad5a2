"""Checksums of a folder: the changes that they detect."""

import json

import pytest

from modernbert_jax.io import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "empty").touch()
    checksums.write(tmp_path)
    return tmp_path


def test_an_untouched_folder_is_whole(folder):
    assert checksums.damage(folder) is None
    (folder / "more").write_text("whatever else is put there does no harm")
    assert checksums.damage(folder) is None
    assert set(json.loads((folder / checksums.FILE).read_text())) == {"a/data", "empty"}


def test_without_checksums_nothing_is_known(tmp_path):
    (tmp_path / "data").touch()
    assert checksums.damage(tmp_path) is None


@pytest.mark.parametrize("at", [0, 255, 5000, 256 * 40 - 1])
def test_one_bit(folder, at):
    content = bytearray((folder / "a" / "data").read_bytes())
    content[at] ^= 8
    (folder / "a" / "data").write_bytes(content)
    assert checksums.damage(folder) == "a/data does not hold what was written"


def test_sizes_and_missing_files(folder):
    (folder / "a" / "data").write_bytes(b"short")
    assert checksums.damage(folder) == "a/data has 5 bytes instead of 10,240"
    (folder / "a" / "data").unlink()
    assert checksums.damage(folder) == "a/data is missing"


@pytest.mark.parametrize("content", ["", "[]", '{"a/data": 3}', '{"a/data": {"bytes": 1}}', "\xff"])
def test_damaged_checksums(folder, content):
    (folder / checksums.FILE).write_bytes(content.encode("latin-1"))
    assert checksums.damage(folder) == "checksums.json cannot be read"


def test_names_outside_the_folder_are_not_opened(folder):
    noted = {"../secret": {"bytes": 1, "sha256": "0"}}
    (folder.parent / "secret").write_text("x")
    (folder / checksums.FILE).write_text(json.dumps(noted))
    assert checksums.damage(folder) == "../secret is missing"


def test_every_damaged_file_is_named(folder):
    (folder / "a" / "data").write_bytes(b"short")
    (folder / "empty").unlink()
    damage = checksums.damage(folder)
    assert "a/data has 5 bytes" in damage and "empty is missing" in damage


def test_only_sizes_of_large_files_are_compared(folder):
    (folder / "a" / "data").write_bytes(bytes(256 * 40))
    assert checksums.damage(folder, largest=100) is None
    assert checksums.damage(folder) is not None
