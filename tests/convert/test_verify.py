"""`verify` and `inspect`."""

import io
import json

import hf_directory
import numpy as np
import pytest
import rich.console
import tiny

from modernbert_jax import convert


@pytest.fixture
def source(tmp_path):
    source = hf_directory.write(tmp_path / "source", config=tiny.config(vocab_size=320), my_key=7)
    for name, content in hf_directory.tokenizer().files.items():
        (source / name).write_bytes(content)
    return source


def changed(source, name="model.layers.2.mlp.Wo.weight", by=1e-3, **keys):
    config = tiny.config(vocab_size=320)
    weights = hf_directory.weights(hf_directory.shapes(config))
    weights[name].flat[5] += by
    return hf_directory.write(source.parent / "changed", weights, config, **keys)


def test_a_conversion_is_equal(source):
    convert.convert(source, source.parent / "jax")
    result = convert.verify(source, source.parent / "jax")
    assert result.equal and (result.worst[1], result.hidden, result.logits) == (0, 0, 0)
    assert result.tensors == len(hf_directory.shapes(tiny.config()))
    assert str(result).splitlines()[-1] == "equal within 1e-05"


def test_a_changed_weight_is_named(source):
    result = convert.verify(source, changed(source))
    assert not result.equal
    assert result.worst[0] == "model.layers.2.mlp.Wo.weight"
    assert result.worst[1] == pytest.approx(1e-3, rel=1e-3)
    assert result.hidden > 0 and result.logits > 0
    assert convert.verify(source, source.parent / "changed", tolerance=1).equal


def test_nan_is_never_equal(source):
    with pytest.warns(UserWarning, match="NaN"):
        result = convert.verify(source, changed(source, by=np.nan), tolerance=1e9)
    assert not result.equal and result.worst[0] == "model.layers.2.mlp.Wo.weight"


def test_another_config_is_named(source):
    result = convert.verify(source, changed(source, by=0, norm_eps=1e-3))
    assert not result.equal and result.config == {"norm_eps": (1e-5, 1e-3)}
    assert result.worst[1] == 0 < result.hidden


def test_a_model_without_head_lacks_its_tensors(source):
    shapes = hf_directory.shapes(tiny.config(vocab_size=320), "ModernBertModel")
    bare = hf_directory.write(
        source.parent / "bare",
        hf_directory.weights(shapes),
        tiny.config(vocab_size=320),
        architectures=["ModernBertModel"],
    )
    result = convert.verify(source, bare)
    assert not result.equal
    assert result.missing["a"] == ["head.dense.weight", "head.norm.weight", "decoder.bias"]
    assert (result.worst[1], result.hidden, result.logits) == (0, 0, None)


def test_another_size_is_compared_by_names_alone(source):
    other = hf_directory.write(source.parent / "other", config=tiny.config(intermediate_size=64))
    result = convert.verify(source, other)
    assert not result.equal and result.hidden is None
    assert "model.layers.0.mlp.Wi.weight" in result.missing["shape"]


def test_inspect(source):
    facts = convert.inspect(source)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["format"], facts["head"], facts["dtype"]) == ("hf", "masked_lm", "float32")
    assert facts["parameter_count"] == tiny.config(vocab_size=320).parameter_count()
    assert sum(row["count"] for row in facts["parameters"]) == facts["parameter_count"]
    assert facts["extra"] == {"my_key": 7}
    assert facts["tokenizer"]["vocab_size"] == 320
    assert facts["tokenizer"]["mask"]["token"] == "[MASK]"
    console = rich.console.Console(width=100, record=True, file=io.StringIO())
    console.print(convert.render(facts))
    text = console.export_text()
    assert "encoder/groups/local_0/mlp/Wi/kernel" in text and "my_key" in text
