"""The `jax` format: its files, and damage that is reported before wrong arrays are used."""

import contextlib
import json
import zlib

import hf_directory
import ml_dtypes
import numpy as np
import pytest

from modernbert_jax import convert
from modernbert_jax.convert import names, native, native_arrays
from modernbert_jax.errors import UserError
from modernbert_jax.io import orbax_files


@pytest.fixture
def directory(tmp_path):
    checkpoint = convert.load(hf_directory.write(tmp_path / "source"))
    convert.save(checkpoint, tmp_path / "jax", "jax")
    return tmp_path / "jax"


def test_contents(directory):
    assert {p.name for p in directory.iterdir()} == {"config.json", "modernbert_jax.json", "params"}
    assert convert.detect(directory) == "jax"
    checkpoint = convert.load(directory)
    source = convert.load(directory.parent / "source")
    assert (checkpoint.config, checkpoint.head) == (source.config, source.head)
    for path, leaf in names.flatten(checkpoint.params).items():
        want = names.leaf(source.params, path)
        assert isinstance(leaf, np.ndarray) and leaf.dtype == want.dtype
        np.testing.assert_array_equal(leaf, want)


def test_relative_paths(directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    convert.convert("jax", "again")
    convert.convert("again", "native")
    assert convert.verify("native", directory, tolerance=0.0).equal


def test_names_are_names(directory, monkeypatch):
    """Orbax takes brackets for a pattern, and writes no index."""
    folder = directory.parent / "models [2]"
    convert.convert(directory, folder / "jax*?", format="jax")
    assert convert.verify(folder / "jax*?", directory, tolerance=0.0).equal
    monkeypatch.setattr(orbax_files, "plain", contextlib.nullcontext)
    with pytest.raises(OSError, match="cannot be read back: its index"):
        convert.convert(directory, folder / "without", format="jax")
    assert [p.name for p in folder.iterdir()] == ["jax*?"]


@pytest.mark.parametrize("name", ["jax", "hf", "out.pt"])
def test_a_full_disk_is_one_line(directory, full_disk, capfd, name):
    full_disk(True)
    with pytest.raises(UserError, match=rf"full/{name}: cannot be written \(File too large\)"):
        convert.convert(directory, directory.parent / "full" / name, format=FORMATS[name])
    full_disk(False)
    assert not [*(directory.parent / "full").iterdir()]
    assert "Traceback" not in capfd.readouterr().err


FORMATS = {"jax": "jax", "hf": "hf", "out.pt": "flexbert"}


def test_half_precision_stays_so_at_rest(tmp_path):
    checkpoint = convert.load(hf_directory.write(tmp_path / "source"))
    convert.save(convert.cast(checkpoint, "bfloat16"), tmp_path / "jax", "jax")
    for leaf in names.flatten(convert.load(tmp_path / "jax").params).values():
        assert leaf.dtype == ml_dtypes.bfloat16


def largest(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def change(directory, file, **keys):
    known = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps(known | keys))


DAMAGE = {
    "a file is missing": (lambda d: largest(d / "params").unlink(), "is missing"),
    "truncated": (
        lambda d: largest(d / "params").write_bytes(largest(d / "params").read_bytes()[:100]),
        "has 100 bytes instead of",
    ),
    "one bit": (lambda d: flip(largest(d / "params")), "does not hold what was written"),
    "no marker": (lambda d: (d / "modernbert_jax.json").unlink(), "modernbert_jax.json: no such"),
    "empty marker": (lambda d: (d / "modernbert_jax.json").write_text("{}"), "version is None"),
    "version": (lambda d: change(d, "modernbert_jax.json", version=3), "this program reads 1"),
    "layout": (lambda d: change(d, "modernbert_jax.json", layout={"a": 1}), "json: damaged"),
    "head": (lambda d: change(d, "modernbert_jax.json", head="a"), "json: damaged .head is 'a'"),
    "checksums": (
        lambda d: (d / "params/checksums.json").unlink(),
        r"params: incomplete or damaged: checksums\.json is missing",
    ),
    "damaged checksums": (
        lambda d: (d / "params/checksums.json").write_text('{"a": {}}'),
        r"checksums\.json cannot be read",
    ),
    "config": (
        lambda d: change(d, "config.json", num_hidden_layers=2, layer_types=None),
        r"params: tensors do not fit the config: missing encoder/layer_1/.*; unexpected encoder/",
    ),
    "shapes": (
        lambda d: change(d, "config.json", vocab_size=97),
        r"encoder/embeddings/embedding \[96, 32\] instead of \[97, 32\]",
    ),
}


@pytest.mark.parametrize("small", [native.SMALL_BYTES, 0], ids=["small files", "large files"])
@pytest.mark.parametrize(("spoil", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage(directory, spoil, message, small, capfd, monkeypatch, tmp_path):
    """Damage is reported before anything is read, or before the last chunk is returned."""
    monkeypatch.setattr(native, "SMALL_BYTES", small)
    monkeypatch.setattr(native_arrays, "CHUNK_BYTES", 4096)
    spoil(directory)
    with pytest.raises(UserError, match=message) as error:
        convert.convert(directory, tmp_path / "converted", "hf")
    assert not (tmp_path / "converted").exists()
    assert "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def old_directory(directory):
    """A directory of version 1: CRC-32 checksums in the marker, and none in `params`."""
    (directory / "params/checksums.json").unlink()
    facts = {
        path.relative_to(directory / "params").as_posix(): [
            path.stat().st_size,
            zlib.crc32(path.read_bytes()),
        ]
        for path in (directory / "params").rglob("*")
        if path.is_file()
    }
    change(directory, "modernbert_jax.json", version=1, files=facts)
    return directory


def test_version_1_is_read(old_directory, tmp_path):
    result = convert.verify(tmp_path / "source", old_directory, tolerance=0.0)
    assert result.equal, result


OLD_DAMAGE = {name: DAMAGE[name] for name in ("a file is missing", "truncated", "one bit")} | {
    "no files": (lambda d: change(d, "modernbert_jax.json", files=[]), "lists no files"),
    "no checksum": (
        lambda d: change(d, "modernbert_jax.json", files={"a": [1]}),
        "has no size and checksum of a",
    ),
}


@pytest.mark.parametrize("small", [native.SMALL_BYTES, 0], ids=["small files", "large files"])
@pytest.mark.parametrize(("spoil", "message"), OLD_DAMAGE.values(), ids=OLD_DAMAGE)
def test_damage_of_version_1(old_directory, spoil, message, small, monkeypatch):
    monkeypatch.setattr(native, "SMALL_BYTES", small)
    spoil(old_directory)
    with pytest.raises(UserError, match=message):
        convert.load(old_directory)
