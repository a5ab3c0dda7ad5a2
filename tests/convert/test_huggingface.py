"""Hugging Face directories: through `jax` and back bit for bit; invalid ones are refused."""

import json
import warnings

import hf_directory
import ml_dtypes
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from modernbert_jax import convert
from modernbert_jax.convert import lazy, names
from modernbert_jax.convert.checkpoint import label_count, label_names
from modernbert_jax.convert.huggingface import weight_files
from modernbert_jax.errors import UserError
from modernbert_jax.io import files

BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
IRREGULAR = ("sliding_attention", "full_attention", "full_attention", "sliding_attention")
CONFIGS = {
    "plain": tiny.config(),
    "no tail": tiny.config(num_hidden_layers=7),
    "biases, untied": tiny.config(**BIASES, tie_word_embeddings=False, decoder_bias=False),
    "every second": tiny.config(num_hidden_layers=6, global_attn_every_n_layers=2),
}


def config_of(directory):
    return json.loads((directory / "config.json").read_text())


def there_and_back(directory):
    """The directory converted to `jax` and from there to `hf`."""
    convert.convert(directory, directory / "jax")
    convert.convert(directory / "jax", directory / "back")
    return directory / "back"


def assert_same_tensors(a, b):
    a, b = weight_files.read(a), load_file(b / "model.safetensors")
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert tensor.tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", hf_directory.mixed])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_bit_comes_back(tmp_path, config, dtype):
    weights = hf_directory.weights(hf_directory.shapes(config), dtype)
    source = hf_directory.write(tmp_path, weights, config)
    assert_same_tensors(source, there_and_back(source))
    assert convert.load(tmp_path / "back").config == config


def test_irregular_layers(tmp_path):
    config = tiny.config(num_hidden_layers=4, layer_types=IRREGULAR)
    weights = hf_directory.weights(hf_directory.shapes(config), hf_directory.mixed)
    source = hf_directory.write(tmp_path, weights, config)
    with pytest.warns(UserWarning, match="transformers 4 cannot express it"):
        assert_same_tensors(source, there_and_back(source))


@pytest.mark.parametrize("head", names.HEADS)
@pytest.mark.parametrize("prefixed", [True, False])
def test_heads_and_prefixes(tmp_path, head, prefixed):
    architecture, labels = names.HEADS[head], 1 if head == "multiple_choice" else 3
    shapes = hf_directory.shapes(tiny.config(**BIASES), architecture, labels)
    plain = {name.removeprefix("model."): s for name, s in shapes.items()}
    if prefixed:
        inner = ("embeddings.", "layers.", "final_norm.")
        plain = {f"model.{n}" if n.startswith(inner) else n: s for n, s in plain.items()}
    keys = {"architectures": [architecture], "id2label": {"0": "x", "1": "y", "2": "z"}}
    weights = hf_directory.weights(plain, hf_directory.mixed)
    source = hf_directory.write(tmp_path, weights, tiny.config(**BIASES), **keys)
    checkpoint = convert.load(source)
    assert checkpoint.head == head
    back = there_and_back(source)
    assert_same_tensors(source, back)
    assert config_of(back)["architectures"] == [architecture]
    assert config_of(back)["id2label"] == keys["id2label"]


@pytest.mark.parametrize(
    ("architecture", "head"), [("ModernBertModel", "none"), ("ModernBertForMaskedLM", "masked_lm")]
)
def test_head_without_architectures(tmp_path, architecture, head):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config(), architecture))
    source = hf_directory.write(tmp_path, weights, architectures=None)
    assert convert.load(source).head == head


def test_shards_become_one_file(tmp_path):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config()), hf_directory.mixed)
    source = hf_directory.write(tmp_path)
    (source / "model.safetensors").unlink()
    weight_files.write(source, weights, shard_bytes=10_000)
    assert len(list(source.glob("*.safetensors"))) > 2
    assert_same_tensors(source, there_and_back(source))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_tied_decoder_that_is_stored_is_stored_again(tmp_path, dtype):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config()))
    table = weights["model.embeddings.tok_embeddings.weight"]
    source = hf_directory.write(tmp_path, weights | {"decoder.weight": table.astype(dtype)})
    assert convert.load(source).config.tie_word_embeddings
    assert_same_tensors(source, there_and_back(source))


def test_a_decoder_that_differs_is_untied(tmp_path):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config(tie_word_embeddings=False)))
    source = hf_directory.write(tmp_path, weights, tiny.config())
    with pytest.warns(UserWarning, match=r"decoder\.weight differs from the embedding"):
        back = there_and_back(source)
    assert config_of(back)["tie_word_embeddings"] is False
    assert_same_tensors(source, back)


def test_rotary_buffers_are_dropped(tmp_path):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config()))
    more = {"model.layers.0.attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    more["model.rotary_emb.full_attention_original_inv_freq"] = np.ones(8, np.float32)
    checkpoint = convert.load(hf_directory.write(tmp_path, weights | more))
    assert checkpoint.count == tiny.config().parameter_count()


def test_config_keys_and_files_come_back(tmp_path):
    carried = {
        **hf_directory.tokenizer().files,
        "special_tokens_map.json": b'{"mask_token":   "[MASK]"}\r\n',
        "generation_config.json": b"{ }",
    }
    extra = {"id2label": {"0": "no"}, "my_key": [1, {"a": None}], "position_embedding_type": "abc"}
    source = hf_directory.write(tmp_path, **extra, dtype="bfloat16")
    for name, content in {**carried, "README.md": b"no", "optimizer.pt": b"no"}.items():
        (source / name).write_bytes(content)
    back = there_and_back(source)
    names_there = {p.name for p in back.iterdir()}
    assert names_there == {"config.json", "model.safetensors", *carried}
    for name, content in carried.items():
        assert (back / name).read_bytes() == content
    for key, value in extra.items():
        assert config_of(back)[key] == value
    # The declared dtype stays, though it is not that of the tensors.
    assert config_of(back)["dtype"] == config_of(back)["torch_dtype"] == "bfloat16"


def test_the_widest_dtype_is_declared(tmp_path):
    weights = hf_directory.weights(hf_directory.shapes(tiny.config()), hf_directory.mixed)
    back = there_and_back(hf_directory.write(tmp_path, weights))
    assert config_of(back)["dtype"] == config_of(back)["torch_dtype"] == "float32"


def test_what_transformers_4_cannot_read_is_rewritten(tmp_path):
    source = hf_directory.write(tmp_path)
    (source / "tokenizer.json").write_bytes(hf_directory.tokenizer().files["tokenizer.json"])
    text = '{"tokenizer_class" : "TokenizersBackend",\t"extra_special_tokens": ["x"]}'
    (source / "tokenizer_config.json").write_text(text)
    want = text.replace("TokenizersBackend", "PreTrainedTokenizerFast")
    want = want.replace("extra_special_tokens", "additional_special_tokens")
    assert (there_and_back(source) / "tokenizer_config.json").read_text() == want


def test_a_missing_tokenizer_config_is_written(tmp_path):
    source = hf_directory.write(tmp_path)
    (source / "tokenizer.json").write_bytes(hf_directory.tokenizer().files["tokenizer.json"])
    written = json.loads((there_and_back(source) / "tokenizer_config.json").read_text())
    assert written["mask_token"] == "[MASK]"
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_max_length"] == 8192


def test_cast(tmp_path):
    source = hf_directory.write(tmp_path / "source", dtype="float32")
    summary = convert.convert(source, tmp_path / "half", format="hf", dtype="bfloat16")
    assert summary.endswith("(hf): 55,392 parameters, bfloat16".replace("55,392", _count()))
    tensors = weight_files.read(tmp_path / "half")
    assert {x.dtype for x in tensors.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert config_of(tmp_path / "half")["torch_dtype"] == "bfloat16"


def _count():
    return f"{tiny.config().parameter_count():,}"


def test_cast_refuses_what_does_not_fit():
    config = tiny.config()
    weights = hf_directory.weights(hf_directory.shapes(config))
    weights["model.layers.2.mlp.Wo.weight"][0, 0] = 1e5
    params = names.to_params(weights, names.table(config, "masked_lm"), "here")
    checkpoint = convert.Checkpoint(config=config, params=params)
    with pytest.raises(UserError, match=r"float16 is too narrow for .*groups/local_1/mlp/Wo"):
        convert.cast(checkpoint, "float16")
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        convert.cast(checkpoint, "bfloat61")


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ({}, ("LABEL_0", "LABEL_1")),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"id2label": {"1": "b", "0": "a", "2": "c"}, "num_labels": 3}, ("a", "b", "c")),
        ({"id2label": {"0": 5}}, ("5",)),
    ],
)
def test_labels_are_those_of_transformers(keys, labels):
    head = "sequence_classification"
    assert label_names(head, keys) == labels and label_count(head, keys) == len(labels)


def change_config(directory, **keys):
    (directory / "config.json").write_text(json.dumps(config_of(directory) | keys))


TAGGER = {"architectures": ["ModernBertForTokenClassification"]}
BAD = {
    "config is no JSON": (
        lambda d: (d / "config.json").write_text("{"),
        r"config\.json: not JSON",
    ),
    "config is a list": (
        lambda d: (d / "config.json").write_text("[]"),
        r"config\.json: holds list; it must be a JSON object",
    ),
    "model type": (
        lambda d: change_config(d, model_type="neobert"),
        r"config\.json: model_type is NeoBERT",
    ),
    "value": (
        lambda d: change_config(d, hidden_size=-1),
        r"/config\.json: hidden_size is -1; it must be a whole number of 1 or more",
    ),
    "head": (
        lambda d: change_config(d, architectures=["ModernBertForMaskedLMs"]),
        "did you mean 'ModernBertForMaskedLM'",
    ),
    "other head": (
        lambda d: change_config(d, architectures=["ModernBertForTokenClassification"]),
        r"missing classifier.weight \[2, 32\], classifier.bias \[2\]; unexpected decoder.bias",
    ),
    "labels": (
        lambda d: change_config(
            d, architectures=["ModernBertForTokenClassification"], num_labels="a"
        ),
        "num_labels is 'a'; it must be 1 or more",
    ),
    "two numbers of labels": (
        lambda d: change_config(d, **TAGGER, num_labels=3, id2label={"0": "a", "1": "b"}),
        "num_labels is 3, and id2label has 2 labels",
    ),
    "gaps between labels": (
        lambda d: change_config(d, **TAGGER, id2label={"0": "a", "2": "b"}),
        "id2label has the keys 0, 2",
    ),
    "labels as keys": (
        lambda d: change_config(d, **TAGGER, id2label={"a": 0, "b": 1}),
        "id2label has the keys a, b",
    ),
    "quantised": (
        lambda d: change_config(d, quantization_config={"load_in_8bit": True}),
        "quantization_config: quantised weights are not read",
    ),
    "other width": (
        lambda d: change_config(d, intermediate_size=40),
        r"model.layers.0.mlp.Wi.weight \[96, 32\] instead of \[80, 32\]",
    ),
    "no weights": (
        lambda d: (d / "model.safetensors").unlink(),
        "has neither model.safetensors nor",
    ),
    "no config": (
        lambda d: (d / "config.json").unlink(),
        r"no checkpoint; neither config\.json nor modernbert_jax\.json is in it",
    ),
    "sentence-transformers": (
        lambda d: (d / "modules.json").write_text("[]"),
        "the first module must be a Transformer",
    ),
    "pylate": (
        lambda d: (d / "modules.json").write_text('[{"type": "pylate.models.Dense.Dense"}]'),
        "must be a list of objects with type and path",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_bad_directories(tmp_path, spoil, message):
    source = hf_directory.write(tmp_path / "source")
    spoil(source)
    with pytest.raises(UserError, match=message) as error:
        convert.convert(source, tmp_path / "target")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_all_problems_are_reported_at_once(tmp_path):
    """Problems of the configuration and the weights, of values and types."""
    source = hf_directory.write(tmp_path / "source")
    change_config(source, hidden_size=-1, norm_eps=0.0, hidden_activation="gulu")
    content = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(content[:-7])
    with pytest.raises(UserError) as error:
        convert.convert(source, tmp_path / "target")
    for part in ("hidden_size is -1", "norm_eps is 0.0", "hidden_activation is 'gulu'"):
        assert part in str(error.value)
    assert "model.safetensors: truncated" in str(error.value)
    change_config(source, hidden_size="32", norm_eps=[])
    with pytest.raises(UserError, match=r"(?=.*hidden_size is '32')(?=.*norm_eps is \[\])"):
        convert.load(source)


def test_a_classifier_needs_architectures(tmp_path):
    shapes = hf_directory.shapes(tiny.config(), "ModernBertForTokenClassification")
    source = hf_directory.write(tmp_path, hf_directory.weights(shapes), architectures=None)
    with pytest.raises(UserError, match="architectures is missing, and a classifier alone"):
        convert.load(source)


def test_bad_paths(tmp_path):
    source = hf_directory.write(tmp_path / "source")
    for path, message in (
        (tmp_path / "nothing", "no such directory"),
        (source / "config.json", "is a file; a checkpoint is a directory"),
        (source / "latest-rank0.pt", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            convert.load(path)
    with pytest.raises(UserError, match="exists; choose another"):
        convert.convert(source, source)
    with pytest.raises(UserError, match="did you mean 'sentence-transformers'"):
        convert.convert(source, tmp_path / "target", format="sentence-transformer")
    with pytest.raises(UserError, match="'pylate' is for late-interaction models"):
        convert.convert(source, tmp_path / "target", format="pylate")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("format", [f for f in convert.FORMATS if f != "pylate"])
@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch, format, problem):
    def fail(*_):
        raise problem

    config = tiny.config(num_hidden_layers=4)
    weights = hf_directory.weights(hf_directory.shapes(config))
    checkpoint = convert.load(hf_directory.write(tmp_path / "source", weights, config))
    monkeypatch.setattr(files, "write_json", fail)
    monkeypatch.setattr(lazy, "by_origin", fail)  # in the midst of a file
    with pytest.raises(problem):
        convert.save(checkpoint, tmp_path / "target", format)
    with pytest.raises(problem):
        convert.save(checkpoint, tmp_path / "target.pt", format)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("format", [f for f in convert.FORMATS if f != "pylate"])
def test_parameters_that_do_not_fit_are_not_written(tmp_path, format):
    checkpoint = convert.load(hf_directory.write(tmp_path / "source"))
    del checkpoint.params["head"]
    with pytest.raises(UserError, match="missing head/dense/kernel"):
        convert.save(checkpoint, tmp_path / "target", format)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_regular_model_converts_without_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there_and_back(hf_directory.write(tmp_path))
