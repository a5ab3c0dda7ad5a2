"""Directories of others that transformers reads: wrapped names, odd indexes, own classes."""

import json
import warnings

import hf_directory
import models
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modernbert_jax import convert, hf_config
from modernbert_jax.convert import formats, names
from modernbert_jax.convert.huggingface import weight_files
from modernbert_jax.convert.wrappers import unwrapped
from modernbert_jax.errors import UserError

NAME = "model.layers.0.attn.Wqkv.weight"


@pytest.fixture
def directory(tmp_path):
    return hf_directory.write(tmp_path / "model")


def rewrite(directory, rename=lambda name: name, **more):
    """Write the weights again under other names."""
    tensors = load_file(directory / weight_files.SINGLE)
    tensors = {rename(name): x for name, x in tensors.items()} | more
    save_file(tensors, directory / weight_files.SINGLE, metadata={"format": "pt"})


def change(directory, **keys):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def same(a, b):
    left, right = (names.flatten(c.params) for c in (a, b))
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


# --- wrapped names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "rename"),
    [
        ("_orig_mod.", lambda n: f"_orig_mod.{n}"),
        ("module.", lambda n: f"module.{n}"),
        ("base_model.model.", lambda n: f"base_model.model.{n}"),
        ("_orig_mod. module.", lambda n: f"module._orig_mod.{n}"),
        ("module. base_model.model.", lambda n: f"module.base_model.model.{n}"),
        ("_orig_mod.", lambda n: n.replace("layers.0.", "layers.0._orig_mod.")),
        ("_fsdp_wrapped_module.", lambda n: f"_fsdp_wrapped_module.{n}"),
    ],
)
def test_prefixes_of_wrappers_are_left_out_and_said(prefix, rename):
    tensors = {NAME: 1, "decoder.bias": 2, "model.layers.1.mlp.Wi.weight": 3}
    with pytest.warns(UserWarning, match=f"without the prefix {prefix}$"):
        assert unwrapped({rename(n): x for n, x in tensors.items()}, "here") == tensors


def test_names_without_prefix_stay():
    tensors = {"module.x": 1, NAME: 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert unwrapped(tensors, "here") == tensors and unwrapped({}, "here") == {}


def test_adapters_that_are_not_merged_are_named():
    with pytest.raises(UserError, match="adapter that is not merged"):
        unwrapped({"base_model.model.layers.0.attn.Wqkv.lora_A.default.weight": 1}, "here")


def test_two_tensors_of_one_name():
    with pytest.raises(UserError, match="one name"):
        unwrapped({NAME: 1, f"_orig_mod.{NAME}": 2}, "here")


def test_a_compiled_model_is_read(directory):
    before = convert.load(directory)
    rewrite(directory, lambda name: f"_orig_mod.{name}")
    with pytest.warns(UserWarning, match="_orig_mod"):
        assert same(convert.load(directory), before)


# --- folders that are no model --------------------------------------------------------------------


def test_an_adapter_is_named(tmp_path, directory):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "some/base"})
    (adapter / "adapter_config.json").write_text(config)
    with pytest.raises(UserError, match=r"adapter of PEFT of 'some/base'.*merge"):
        formats.detect(adapter)
    (directory / weight_files.SINGLE).unlink()
    (directory / "adapter_config.json").write_text(config)
    with pytest.raises(UserError, match="adapter of PEFT"):
        convert.load(directory)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_pointers_of_git_lfs_are_named(directory, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (directory / name).write_text(pointer)
    with pytest.raises(UserError, match=f"{name}: a pointer of Git LFS"):
        convert.load(directory).tokenizer  # noqa: B018


def test_pointers_in_place_of_pickled_weights(directory):
    (directory / weight_files.SINGLE).unlink()
    (directory / weight_files.PICKLE).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="a pointer of Git LFS"):
        convert.load(directory)


# --- what transformers reads too ------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"projection.weight": np.zeros((2, 2), np.float32)}])
def test_a_class_of_its_own(directory, extra):
    before = convert.load(directory)
    change(directory, architectures=["ModernBertForTripletEmbedding"])
    rewrite(directory, **extra)
    if not extra:
        after = convert.load(directory)
    else:
        with pytest.warns(UserWarning, match=r"without projection\.weight"):
            after = convert.load(directory)
    assert after.head == "masked_lm" and same(after, before)


def test_a_class_of_its_own_with_a_classifier_is_its_encoder(directory):
    rewrite(directory, lambda n: n.replace("decoder.", "classifier.out."))
    change(directory, architectures=["MyModel"])
    with pytest.warns(UserWarning, match="the encoder is read without"):
        assert convert.load(directory).head == "none"


def test_several_tokens_that_end_a_text(directory, tmp_path):
    ids = [17, 18]
    change(directory, eos_token_id=ids)
    checkpoint = convert.load(directory)
    assert checkpoint.config.eos_token_id == 17
    convert.save(checkpoint, tmp_path / "back", "hf")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["eos_token_id"] == ids
    assert hf_config.unknown_keys({"eos_token_id": 5}) == {}


def test_an_index_with_extra_and_wrong_entries(directory):
    before = convert.load(directory)
    tensors = load_file(directory / weight_files.SINGLE)
    (directory / weight_files.SINGLE).unlink()
    halves = [[*tensors][::2], [*tensors][1::2]]
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, half in zip(files, halves, strict=True):
        part = {name: tensors[name] for name in half}
        save_file(part, directory / file, metadata={"format": "pt"})
    places = dict.fromkeys(tensors, files[0]) | {"decoder.weight": files[1]}
    (directory / weight_files.INDEX).write_text(json.dumps({"weight_map": places}))
    assert same(convert.load(directory), before)


def test_the_first_layout_of_sentence_transformers(tmp_path):
    source = models.write("dense", tmp_path / "a")
    before = convert.load(source)
    inner = source / "0_Transformer"
    inner.mkdir()
    for path in [*source.iterdir()]:
        if path.is_file() and path.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            path.rename(inner / path.name)
    listed = json.loads((source / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (source / "modules.json").write_text(json.dumps(listed))
    after = convert.load(source)
    assert same(after, before) and after.pipeline == before.pipeline
    assert after.tokenizer.encode(["a"]) == before.tokenizer.encode(["a"])
    convert.save(after, tmp_path / "back", "hf")
    assert same(convert.load(tmp_path / "back"), before)
