"""The table of names: agrees with the modules and with transformers, and reports errors."""

import hf_directory
import jax
import numpy as np
import pytest
import tiny

from modernbert_jax.config import PRESETS
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM
from modernbert_jax.model import Encoder

BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
IRREGULAR = ("sliding_attention", "full_attention", "full_attention", "sliding_attention")
CONFIGS = {
    "plain": tiny.config(),
    "no tail": tiny.config(num_hidden_layers=7),
    "one layer": tiny.config(num_hidden_layers=1),
    "every second": tiny.config(num_hidden_layers=6, global_attn_every_n_layers=2),
    "all global": tiny.config(num_hidden_layers=3, global_attn_every_n_layers=1),
    "irregular": tiny.config(num_hidden_layers=4, layer_types=IRREGULAR),
    "biases, untied": tiny.config(**BIASES, tie_word_embeddings=False, decoder_bias=False),
}


def module_shapes(module, length=8):
    """Paths and shapes of the parameters that the module's `init` creates."""
    tree = jax.eval_shape(module.init, jax.random.key(0), *tiny.rows([[5]], length))["params"]
    return {path: leaf.shape for path, leaf in names.flatten(tree).items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("head", "module"), [("masked_lm", MaskedLM), ("none", Encoder)])
def test_table_covers_the_module_exactly(config, head, module):
    rows = names.table(config, head)
    assert names.shapes(rows) == module_shapes(module(config))
    places = [(row.path, row.index) for row in rows.values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", PRESETS)
def test_table_covers_the_presets(name):
    config = PRESETS[name]
    count = sum(np.prod(s) for s in names.shapes(names.table(config, "masked_lm")).values())
    assert count == config.parameter_count()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("head", names.HEADS)
def test_foreign_names_and_shapes_are_those_of_transformers(config, head):
    rows = names.table(config, head, labels=3, prefix="" if head == "none" else "model.")
    want = hf_directory.shapes(config, names.HEADS[head], labels=3)
    assert {name: row.shape for name, row in rows.items()} == want


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_tensor_comes_back(config):
    rows = names.table(config, "masked_lm")
    tensors = hf_directory.weights(hf_directory.shapes(config))
    back = names.to_tensors(names.to_params(tensors, rows, "here"), rows)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)
        assert back[name].flags.c_contiguous


def test_all_differences_are_named_at_once():
    config = tiny.config()
    tensors = hf_directory.weights(hf_directory.shapes(config))
    del tensors["model.layers.3.mlp.Wo.weight"], tensors["decoder.bias"]
    tensors["model.layers.9.mlp.Wo.weight"] = np.zeros((2, 2), np.float32)
    tensors["head.dense.weight"] = np.zeros((32, 31), np.float32)
    with pytest.raises(UserError) as error:
        names.to_params(tensors, names.table(config, "masked_lm"), "here")
    assert str(error.value) == (
        "here: tensors do not fit the config:"
        " missing model.layers.3.mlp.Wo.weight [32, 48], decoder.bias [96];"
        " unexpected model.layers.9.mlp.Wo.weight [2, 2];"
        " of another shape head.dense.weight [32, 31] instead of [32, 32]"
    )


def test_a_stack_of_two_dtypes_takes_one_that_holds_both():
    for dtypes, want in (
        (("float16", "bfloat16"), "float32"),
        (("float16",), "float16"),
        (("float64", "float16"), "float64"),
    ):
        assert names.common_dtype(dtypes).name == want
