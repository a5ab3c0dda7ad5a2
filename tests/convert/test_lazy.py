"""Lazy arrays: the same numbers as arrays in memory, read one at a time when they are used."""

import tracemalloc

import hf_directory
import numpy as np
import pytest
import tiny

from modernbert_jax import convert
from modernbert_jax.convert import lazy, names
from modernbert_jax.convert.huggingface import safetensors_file, weight_files
from modernbert_jax.errors import UserError

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def later(x, name="x"):
    return lazy.source(name, x.shape, x.dtype, lambda: x)


def assert_same(actual, want):
    assert (actual.shape, actual.dtype, actual.size) == (want.shape, want.dtype, want.size)
    assert (actual.nbytes, actual.ndim) == (want.nbytes, want.ndim)
    np.testing.assert_array_equal(np.asarray(actual), want)
    assert np.asarray(actual).dtype == want.dtype


@pytest.mark.parametrize("x", [later(X), lazy.Stack([later(m) for m in X], X.dtype)])
def test_what_can_be_asked_of_one(x):
    assert_same(x, X)
    assert_same(x[1], X[1])
    assert_same(x.astype("float16"), X.astype("float16"))
    assert_same(x.astype("float16")[0], X[0].astype("float16"))
    assert_same(x.each(lambda a: a + 1, x.dtype)[1], X[1] + 1)
    assert_same(lazy.rearranged(x, lambda a: a.swapaxes(-1, -2)), X.swapaxes(-1, -2))
    assert_same(lazy.rearranged(x, lambda a: a.reshape(6, 4)), X.reshape(6, 4))
    assert x.astype(np.float32) is x
    assert np.asarray(x, np.float64).dtype == np.float64


def test_a_stack_takes_arrays_too():
    assert_same(lazy.Stack([X[0], later(X[1])], "float64"), X.astype("float64"))
    assert_same(lazy.Stack([X[0], later(X[1])], "float64")[0], X[0].astype("float64"))


def test_nothing_is_read_before_it_is_used():
    read = []

    def hear(name, _):
        read.append(name)

    stack = lazy.Stack([later(m, f"m{i}") for i, m in enumerate(X)], X.dtype)
    with lazy.watching(hear):
        member = stack.astype("float16")[1]
        assert read == []
        np.asarray(member)
        np.asarray(stack)
    np.asarray(stack)
    assert read == ["m1", "m0", "m1"]


def test_members_of_a_stack_are_written_one_after_the_other():
    a, b = later(X), later(X)
    members = {"a0": a[0], "b0": b[0], "alone": X[0], "a1": a[1], "b1": b[1].astype("float16")}
    assert lazy.by_origin(members) == ["a0", "a1", "b0", "b1", "alone"]


def test_equal_and_unequal(monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", 5)
    other = X.copy()
    other[1, 2, 3] = np.nan
    assert lazy.equal(later(X), X.astype(np.float64))
    assert lazy.equal(later(other), other)
    assert not lazy.equal(later(X), other)
    assert not lazy.equal(X, X[0])


@pytest.mark.parametrize("format", ["jax", "hf", "flexbert"])
def test_weights_that_are_no_numbers_are_converted_with_a_warning(tmp_path, format):
    config = tiny.config(num_hidden_layers=4)
    weights = hf_directory.weights(hf_directory.shapes(config))
    weights["model.layers.2.mlp.Wo.weight"][3, 4] = np.nan
    source = hf_directory.write(tmp_path / "source", weights, config)
    with pytest.warns(UserWarning, match=r"NaN or infinity in model\.layers\.2\.mlp\.Wo\.weight$"):
        convert.convert(source, tmp_path / "out", format=format)
    with pytest.warns(UserWarning, match=r"NaN or infinity in .*Wo"):
        loaded = convert.load(tmp_path / "out")
    assert sum(np.isnan(x).sum() for x in names.flatten(loaded.params).values()) == 1


def test_a_cast_that_fails_names_all_and_leaves_nothing(tmp_path):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config()))
    weights["model.layers.2.mlp.Wo.weight"][0, 0] = 1e5
    weights["head.dense.weight"][0, 0] = -1e6
    source = hf_directory.write(tmp_path / "source", weights)
    with pytest.raises(UserError, match=r"narrow for values of .*local_1/mlp/Wo.*, head/dense"):
        convert.convert(source, tmp_path / "out", format="hf", dtype="float16")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_progress(tmp_path):
    source, seen = hf_directory.write(tmp_path / "source"), []
    for format in ("hf", "jax"):
        seen.clear()
        convert.convert(
            source, tmp_path / format, format, progress=lambda *numbers: seen.append(numbers)
        )
        total = 4 * tiny.config().parameter_count()
        assert seen == sorted(seen) and seen[-1] == (total, total)


def test_the_library_would_write_the_same_file(tmp_path):
    from safetensors.numpy import save_file

    weights = hf_directory.weights(hf_directory.shapes(tiny.config()), hf_directory.mixed)
    weights["ä"] = np.float64([[1.5]])
    weights["scalar"] = np.array(2, np.float32)
    save_file(weights, tmp_path / "theirs", metadata={"format": "pt"})
    safetensors_file.write(tmp_path / "ours", {n: later(x) for n, x in weights.items()})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("way", [("hf", "hf"), ("hf", "flexbert"), ("flexbert", "hf")])
def test_a_model_is_never_in_memory_as_a_whole(tmp_path, way):
    """Only the program's own format needs more; test_memory.py measures it on a large model."""
    config = tiny.config(hidden_size=64, num_hidden_layers=31)
    weights = hf_directory.weights(hf_directory.shapes(config))
    total = sum(x.nbytes for x in weights.values())
    source = hf_directory.write(tmp_path / "source", weights, config)
    del weights
    convert.convert(source, tmp_path / way[0], format=way[0])
    convert.convert(tmp_path / way[0], tmp_path / "warm", format=way[1])  # what stays, stays now
    tracemalloc.start()
    convert.convert(tmp_path / way[0], tmp_path / "out", format=way[1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < total / 2, (peak, total)


def test_shards_are_written_from_lazy_tensors(tmp_path):
    weight_files.write(tmp_path, {f"t{i}": later(X + i) for i in range(5)}, shard_bytes=200)
    tensors = weight_files.read(tmp_path)
    assert len([*tmp_path.glob("*.safetensors")]) == 3
    assert all((tensors[f"t{i}"] == X + i).all() for i in range(5))
