"""Two checkpoints of the original research code, with what it computed from them on a CPU."""

import functools
import json

import numpy as np
import pytest
from reference import FIXTURES, hf_name, loss_and_gradients, one_row, parameters
from safetensors.numpy import load_file

from modernbert_jax.config import ModernBertConfig

FOLDER = FIXTURES / "flexbert"
NAMES = ("tiny_context_extended", "tiny_stage1")


def architecture(name: str) -> ModernBertConfig:
    """By hand, so that nothing but the model is on trial."""
    research = json.loads((FOLDER / f"{name}.json").read_text())
    theta, local_theta = research["rotary_emb_base"], research["local_attn_rotary_emb_base"]
    return ModernBertConfig(
        vocab_size=research["vocab_size"],
        hidden_size=research["hidden_size"],
        intermediate_size=research["intermediate_size"],
        num_hidden_layers=research["num_hidden_layers"],
        num_attention_heads=research["num_attention_heads"],
        global_attn_every_n_layers=research["global_attn_every_n_layers"],
        local_attention=research["sliding_window"],
        global_rope_theta=theta,
        local_rope_theta=theta if local_theta == -1 else local_theta,
        pad_token_id=0,
    )


@functools.cache
def computed(name: str):
    weights = {hf_name(k): v for k, v in load_file(FOLDER / f"{name}.safetensors").items()}
    golden = np.load(FOLDER / f"{name}.npz")
    config = architecture(name)
    params = parameters(config, lambda tensor, shape: weights[tensor].reshape(shape))
    batch = one_row(golden["input_ids"], golden["labels"], golden["cu_seqlens"])
    return loss_and_gradients(config, batch, params), golden


def test_the_stage_1_checkpoint_has_one_theta():
    config = architecture("tiny_stage1")
    assert config.local_rope_theta == config.global_rope_theta == 10_000.0


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_logits_and_loss(name):
    ours, golden = computed(name)
    labelled = golden["labels"] != -100
    np.testing.assert_allclose(ours["hidden"][0], golden["hidden"], atol=3e-6, rtol=0)
    logits = ours["logits"][0][labelled]
    np.testing.assert_allclose(logits, golden["masked_logits"], atol=3e-6, rtol=0)
    np.testing.assert_allclose(ours["loss"], golden["loss"], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_norms(name):
    ours, golden = computed(name)
    norms = {
        hf_name(key.removeprefix("grad_norm/")): golden[key]
        for key in golden
        if key.startswith("grad_norm/")
    }
    assert norms.keys() == ours["grads"].keys()
    for tensor, norm in norms.items():
        got = np.linalg.norm(ours["grads"][tensor])
        np.testing.assert_allclose(got, norm, rtol=1e-5, err_msg=tensor)
