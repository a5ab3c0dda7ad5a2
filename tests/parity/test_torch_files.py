"""torch itself against our reader and writer of its files."""

import collections

import numpy as np
import pytest
import tiny
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import FIXTURES
from safetensors.numpy import load_file

from modernbert_jax import convert
from modernbert_jax.convert import lazy
from modernbert_jax.convert.torch_files import archives, writer

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def bits(x: torch.Tensor) -> bytes:
    # A copy: a step leaves a stride of two to an axis of one, which torch calls contiguous.
    flat = torch.empty(x.numel(), dtype=x.dtype).copy_(x.detach().reshape(-1))
    return flat.view(torch.uint8).numpy().tobytes()


def assert_same(arrays: dict[str, lazy.Lazy], want: dict[str, torch.Tensor]) -> None:
    assert [*arrays] == [*want]
    for name, x in want.items():
        array = np.asarray(arrays[name])
        assert (array.dtype.name, array.shape) == (str(x.dtype)[6:], tuple(x.shape))
        assert np.ascontiguousarray(array).tobytes() == bits(x), name


@st.composite
def tensors(draw) -> torch.Tensor:
    """A tensor, or one of many views of one."""
    shape = draw(st.lists(st.integers(1, 5), max_size=4))
    x = torch.randn(shape).to(draw(st.sampled_from(DTYPES)))
    for _ in range(draw(st.integers(0, 2)) if shape else 0):
        axis = draw(st.integers(0, x.dim() - 1))
        match draw(st.sampled_from(("transpose", "part", "step", "parameter"))):
            case "transpose":
                x = x.transpose(0, axis)
            case "part":
                x = x.narrow(axis, draw(st.integers(0, x.shape[axis] - 1)), 1)
            case "step":
                x = x[::2]
            case "parameter":
                x = torch.nn.Parameter(x)
    return x


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(tensors(), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_what_torch_saves_is_read(tmp_path_factory, values, ordered, checksums):
    path = tmp_path_factory.mktemp("torch") / "x.bin"
    want = {str(i): x for i, x in enumerate([*values, values[0]])}
    torch.serialization.set_crc32_options(checksums)
    torch.save(collections.OrderedDict(want) if ordered else want, path)
    torch.serialization.set_crc32_options(True)
    assert_same(archives.state_dict(path), want)


@pytest.mark.parametrize("map_", [False, True])
def test_what_is_written_is_loaded_by_torch(tmp_path, map_):
    rng = np.random.default_rng(0)
    names = [str(d)[6:] for d in DTYPES]
    arrays = {n: rng.standard_normal((3, 5, 2)).astype(n) for n in names}
    value = {**arrays, "again": arrays["float32"], "plain": [1, 2**40, -(2**70), (0.5, None), "ä"]}
    value |= {"bytes": b"\x00\xff", "nested": {"a": {"b": []}}, "one": np.float32([3])}
    writer.write(tmp_path / "x.pt", value)
    tensors = torch.load(tmp_path / "x.pt", weights_only=True, mmap=map_)
    for name, array in arrays.items():
        assert str(tensors[name].dtype)[6:] == name and tensors[name].shape == array.shape
        assert bits(tensors[name]) == array.tobytes()
    assert tensors["again"].data_ptr() == tensors["float32"].data_ptr()
    assert {k: tensors[k] for k in ("plain", "bytes", "nested")} == {
        k: value[k] for k in ("plain", "bytes", "nested")
    }


def test_a_model_saved_as_pickle_is_read(tmp_path):
    """Pickled files of version 4, one file and shards, compared with the same as safetensors."""
    config = transformers.ModernBertConfig(**hf_keys(tiny.config()))
    model = transformers.ModernBertForMaskedLM(config)
    model.save_pretrained(tmp_path / "hf")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/config.json").write_bytes((tmp_path / "hf/config.json").read_bytes())
    torch.save(model.state_dict(), tmp_path / "bin/pytorch_model.bin")
    convert.convert(tmp_path / "hf", tmp_path / "one", format="hf")
    convert.convert(tmp_path / "bin", tmp_path / "two", format="hf")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    table = two.pop("decoder.weight")  # a state dict has the tied decoder, and it is kept
    assert table.tobytes() == one["model.embeddings.tok_embeddings.weight"].tobytes()
    assert one.keys() == two.keys()
    assert all(one[n].tobytes() == two[n].tobytes() for n in one)


def hf_keys(config):
    return {k: v for k, v in config.to_hf().items() if k != "sliding_window"}


@pytest.mark.parametrize("name", ["tiny_stage1", "tiny_context_extended"])
@pytest.mark.parametrize("way", ["jax", "hf"])
def test_research_checkpoints_come_back_as_torch_sees_them(tmp_path, name, way):
    source = FIXTURES / f"flexbert/{name}.pt"
    convert.convert(source, tmp_path / way, format=way)
    convert.convert(tmp_path / way, tmp_path / "back.pt")
    old, new = (torch.load(p, weights_only=True)["state"] for p in (source, tmp_path / "back.pt"))
    assert [*old["model"]] == [*new["model"]]
    for tensor, want in old["model"].items():
        assert want.dtype == new["model"][tensor].dtype and bits(want) == bits(new["model"][tensor])
    configs = (s["integrations"]["huggingface"]["model"]["config"]["content"] for s in (old, new))
    assert next(configs) == next(configs)
    table = new["model"]["model.bert.embeddings.tok_embeddings.weight"]
    assert new["model"]["model.decoder.weight"].data_ptr() == table.data_ptr()
    assert_same(
        (archive := archives.Archive(source)).tensors(archive.value["state"]["model"]),
        old["model"],
    )
