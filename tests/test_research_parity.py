"""Two checkpoints of the original research code, with what it computed from them on a CPU."""

import dataclasses
import functools

import numpy as np
import pytest
from reference import FIXTURES, hf_name, loss_and_gradients, one_row

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig

FOLDER = FIXTURES / "flexbert"
ROLES = ("bos", "cls", "eos", "sep")
NAMES = ("tiny_context_extended", "tiny_stage1")


@functools.cache
def checkpoint(name: str) -> convert.Checkpoint:
    return convert.load(FOLDER / f"{name}.pt")


def architecture(name: str) -> ModernBertConfig:
    """The architecture written by hand, so that only the model is tested."""
    research = checkpoint(name).extra["flexbert"]
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
    golden = np.load(FOLDER / f"{name}.npz")
    config = architecture(name)
    batch = one_row(golden["input_ids"], golden["labels"], golden["cu_seqlens"])
    return loss_and_gradients(config, batch, checkpoint(name).params), golden


@pytest.mark.parametrize("name", NAMES)
def test_the_architecture_is_read_as_by_hand(name):
    config, by_hand = checkpoint(name).config, architecture(name)
    training = ("attention_dropout", "classifier_pooling", "pad_token_id")
    same = {field: getattr(by_hand, field) for field in training}
    ids = {f"{role}_token_id": getattr(by_hand, f"{role}_token_id") for role in ROLES}
    assert dataclasses.replace(config, **same, **ids) == by_hand


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
