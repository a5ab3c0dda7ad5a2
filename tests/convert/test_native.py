"""The project's own directory: what it holds, and that damage is found before it is read."""

import json

import hf_directory
import ml_dtypes
import numpy as np
import pytest

from modernbert_jax import convert
from modernbert_jax.convert import names, native
from modernbert_jax.errors import UserError


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
        r"is not as it was written \(100 bytes\)",
    ),
    "one bit": (lambda d: flip(largest(d / "params")), "is not as it was written"),
    "no marker": (lambda d: (d / "modernbert_jax.json").unlink(), "modernbert_jax.json: no such"),
    "empty marker": (lambda d: (d / "modernbert_jax.json").write_text("{}"), "version is None"),
    "version": (lambda d: change(d, "modernbert_jax.json", version=2), "this program reads 1"),
    "layout": (lambda d: change(d, "modernbert_jax.json", layout={"a": 1}), "json: damaged"),
    "head": (lambda d: change(d, "modernbert_jax.json", head="a"), "json: damaged .head is 'a'"),
    "files": (lambda d: change(d, "modernbert_jax.json", files=[]), "lists no files"),
    "config": (
        lambda d: change(d, "config.json", num_hidden_layers=2, layer_types=None),
        r"params: tensors do not fit the config: missing encoder/layer_1/.*; unexpected encoder/",
    ),
    "shapes": (
        lambda d: change(d, "config.json", vocab_size=97),
        r"encoder/embeddings/embedding \[96, 32\] instead of \[97, 32\]",
    ),
}


@pytest.mark.parametrize("small", [native._SMALL, 0], ids=["small files", "large files"])
@pytest.mark.parametrize(("spoil", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage(directory, spoil, message, small, capfd, monkeypatch, tmp_path):
    """Found before anything is read, or before the last array is given out."""
    monkeypatch.setattr(native, "_SMALL", small)
    monkeypatch.setattr(native, "_RUN", 4096)
    spoil(directory)
    with pytest.raises(UserError, match=message) as error:
        convert.convert(directory, tmp_path / "converted", "hf")
    assert not (tmp_path / "converted").exists()
    assert "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err
