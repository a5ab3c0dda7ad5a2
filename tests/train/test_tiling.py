"""Large from base: bit for bit what the research code made, and what it should have made."""

import hashlib
import json

import jax
import numpy as np
import pytest
import tiny
from reference import FIXTURES, hf_name
from safetensors.numpy import load_file

from modernbert_jax import UserError
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.heads import MaskedLM
from modernbert_jax.train import tiling

FOLDER = FIXTURES / "tiling"


def model(size: str, **changes) -> ModernBertConfig:
    """A model of the fixture; its L, H, I and h are in `shapes.json`."""
    shape = json.loads((FOLDER / "shapes.json").read_text())[size]
    sizes = {
        "num_hidden_layers": shape["L"],
        "hidden_size": shape["H"],
        "intermediate_size": shape["I"],
        "num_attention_heads": shape["h"],
    }
    vocab = load_file(FOLDER / "small.safetensors")["bert.embeddings.tok_embeddings.weight"].shape[
        0
    ]
    return ModernBertConfig(**sizes | {"vocab_size": vocab, "pad_token_id": 0} | changes)


@pytest.fixture(scope="module")
def small():
    tensors = {hf_name(name): x for name, x in load_file(FOLDER / "small.safetensors").items()}
    rows = names.table(model("small"), "masked_lm")
    return names.to_params({name: tensors[name] for name in rows}, rows, "fixture")


def tensors(params, config) -> dict[str, np.ndarray]:
    return names.to_tensors(params, names.table(config, "masked_lm"))


def test_legacy_is_the_research_code_bit_for_bit(small):
    large = model("tiled")
    tiled = tensors(tiling.tile(small, model("small"), large, legacy=True), large)
    recorded = json.loads((FOLDER / "tiled.sha256.json").read_text())
    assert {hf_name(name) for name in recorded} >= tiled.keys()
    for name, (shape, digest) in recorded.items():
        if hf_name(name) in tiled:
            x = tiled[hf_name(name)]
            assert list(x.shape) == shape, name
            assert hashlib.sha256(x.tobytes()).hexdigest() == digest, name


def test_the_final_norm_is_tiled_too(small):
    norm = ("encoder", "final_norm", "scale")
    scale = 1 + np.arange(128, dtype=np.float32)
    params = jax.tree.map(np.copy, small)
    names.put(params, norm, scale)
    for legacy in (False, True):
        tiled = tiling.tile(params, model("small"), model("tiled"), legacy=legacy)
        wanted = np.ones(192) if legacy else tiling.tiled(scale, (192,), "middle")
        assert np.array_equal(names.leaf(tiled, norm), wanted)


def test_modes_on_a_line():
    line = np.array([1, 2, 3])
    assert tiling.tiled(line, (7,), "middle").tolist() == [2, 3, 1, 2, 3, 1, 2]
    assert tiling.tiled(line, (7,), "edge").tolist() == [1, 2, 3, 1, 2, 3, 1]
    around = tiling._fill(line, np.full(7, 9, np.float32), "center")
    assert around.tolist() == [9, 9, 1, 2, 3, 9, 9]


def test_layer_map():
    base_to_large = tiling.layer_map(22, 28)
    assert base_to_large == [
        *(0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13, 14, 15, 16, 16, 17, 18, 19),
        *(20, 20, 21),
    ]
    assert tiling.layer_map(2, 8) == [0, 0, 0, 1, 1, 1, 1, 1]
    with pytest.raises(UserError, match="needs layer 2"):
        tiling.layer_map(2, 8, legacy=True)


@pytest.mark.parametrize("mode", ["middle", "edge", "center"])
def test_every_mode_fills_a_model(mode):
    """Wider and deeper, with another split into groups; center keeps what it put in the middle."""
    config = tiny.config()
    larger = tiny.config(
        num_hidden_layers=8, hidden_size=48, intermediate_size=80, num_attention_heads=3
    )
    ids = np.zeros((1, 8), np.int32)
    init = jax.eval_shape(MaskedLM(config).init, jax.random.key(0), ids, ids, ids)["params"]
    params = tiny.randomised(init)
    tiled = tiling.tile(params, config, larger, mode)
    names.check_params(tiled, names.table(larger, "masked_lm"), "made")
    table, old = (names.leaf(p, ("encoder", "embeddings", "embedding")) for p in (tiled, params))
    start = 0 if mode == "edge" else 8
    assert np.array_equal(table[:, start : start + 32], old)
    kernel = tensors(tiled, larger)["model.layers.7.attn.Wqkv.weight"].reshape(3, 48, 48)
    theirs = tensors(params, config)["model.layers.4.attn.Wqkv.weight"].reshape(3, 32, 32)
    assert np.array_equal(kernel[:, start : start + 32, start : start + 32], theirs)
    hidden = MaskedLM(larger).apply({"params": tiled}, *tiny.rows([[5, 7]], 16), method="hidden")
    assert np.isfinite(hidden).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 16}, "hidden_size is 16, less than 32"),
        ({"vocab_size": 128}, "keeps vocab_size: it is 96"),
        ({"attention_bias": True}, "keeps attention_bias"),
    ],
)
def test_what_cannot_be_tiled(changes, message):
    with pytest.raises(UserError, match=message):
        tiling.tile({}, tiny.config(), tiny.config(**changes))
