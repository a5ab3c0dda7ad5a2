"""Safetensors files: sound ones are read and written, damaged ones refused with a reason."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from modernbert_jax.convert.huggingface import weight_files
from modernbert_jax.errors import UserError

GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write_raw(path, header, data=bytes(16)):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def some():
    return {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4).astype(ml_dtypes.bfloat16),
        "c": np.arange(5, dtype=np.float16),
    }


def assert_same(actual, want):
    assert actual.keys() == want.keys()
    for name, tensor in want.items():
        assert actual[name].dtype == tensor.dtype
        assert actual[name].tobytes() == tensor.tobytes()


def test_one_file(tmp_path):
    weight_files.write(tmp_path, some())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert_same(weight_files.read(tmp_path), some())


def test_shards(tmp_path):
    weight_files.write(tmp_path, some(), shard_bytes=30)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 15, "total_size": 42}
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"
    assert_same(weight_files.read(tmp_path), some())


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": GOOD}, bytes(15), "truncated, 15 bytes of data where the header says 16"),
        ({"a": GOOD}, bytes(18), "2 bytes at the end belong to no tensor"),
        ({"a": GOOD, "b": {**GOOD, "data_offsets": [8, 24]}}, bytes(24), "b overlaps a"),
        (
            {"a": GOOD, "b": {**GOOD, "data_offsets": [20, 36]}},
            bytes(36),
            "4 bytes before b belong to no tensor",
        ),
        ({"a": {**GOOD, "shape": [2, 3]}}, bytes(16), "a has 16 bytes; F32 [2, 3] needs 24"),
        ({"a": {**GOOD, "dtype": "F16"}}, bytes(16), "a has 16 bytes; F16 [2, 2] needs 8"),
        ({"a": {**GOOD, "dtype": "I32"}}, bytes(16), "a has dtype 'I32'; weights are F64, F32"),
        ({"a": {**GOOD, "dtype": ["F32"]}}, bytes(16), "a has dtype ['F32']"),
        ({"a": {**GOOD, "shape": [-2, -2]}}, bytes(16), "a has shape [-2, -2] and"),
        ({"a": {**GOOD, "shape": 4}}, bytes(16), "a has shape 4 and"),
        ({"a": {**GOOD, "data_offsets": [16, 0]}}, bytes(16), "a has -16 bytes"),
        ({"a": {**GOOD, "data_offsets": [0]}}, bytes(16), "which make no sense"),
        ({"a": {"dtype": "F32"}}, bytes(16), "a has no dtype, shape or data_offsets"),
        ({"a": 3}, bytes(16), "a has no dtype, shape or data_offsets"),
        ([1], b"", "the header is not a JSON object"),
        (b"{nonsense", b"", "the header: not JSON"),
        (b"\xff\xfe\xfd", b"", "the header: not "),
        (b'{"a": 1, "a": 2}', b"", "the header: not JSON (a name twice)"),
    ],
)
def test_damaged_headers(tmp_path, header, data, message):
    write_raw(tmp_path / "model.safetensors", header, data)
    with pytest.raises(UserError) as error:
        weight_files.read(tmp_path)
    assert message in str(error.value)
    assert "model.safetensors" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, 0 bytes"),
        (b"\0\0", "truncated, 2 bytes"),
        (struct.pack("<Q", 1000) + b"{}", "truncated, a header of 1000 bytes in 10"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
    ],
)
def test_not_a_whole_file(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError) as error:
        weight_files.read(tmp_path)
    assert message in str(error.value)


def test_every_problem_is_named(tmp_path):
    wrong = {"a": {**GOOD, "dtype": "I8"}, "b": {**GOOD, "shape": [3]}}
    write_raw(tmp_path / "one.safetensors", wrong)
    places = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    places |= {"d": "../three.safetensors", "e": "/etc/four.safetensors"}
    (tmp_path / weight_files.INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError) as error:
        weight_files.read(tmp_path)
    for part in (
        "two.safetensors: no such file",
        "'../three.safetensors', which is not inside the directory",
        "'/etc/four.safetensors', which is not inside the directory",
        "a has dtype 'I8'",
        "b has 16 bytes; F32 [3] needs 12",
    ):
        assert part in str(error.value)


def test_a_tensor_is_in_one_shard(tmp_path):
    write_raw(tmp_path / "one.safetensors", {"a": GOOD})
    write_raw(tmp_path / "two.safetensors", {"a": GOOD})
    places = {"a": "one.safetensors", "b": "two.safetensors"}
    (tmp_path / weight_files.INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match=r"a is in one\.safetensors and two\.safetensors"):
        weight_files.read(tmp_path)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "{"]
)
def test_bad_index(tmp_path, content):
    (tmp_path / weight_files.INDEX).write_text(content)
    with pytest.raises(UserError, match=weight_files.INDEX):
        weight_files.read(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"has neither model\.safetensors nor"):
        weight_files.read(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_no_numbers_are_read_with_a_warning(tmp_path, dtype):
    weight_files.write(tmp_path, {"good": np.ones(2, dtype), "bad": np.array([1, np.nan], dtype)})
    with pytest.warns(UserWarning, match="NaN or infinity in bad$"):
        assert np.isnan(weight_files.read(tmp_path)["bad"][1])
