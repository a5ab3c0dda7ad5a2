"""The architecture's derived facts against real parameter trees and published numbers."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from modernbert_jax.architecture import FULL, SLIDING, RopeScaling, ScanPlan, block_name
from modernbert_jax.config import (
    PRESETS,
    ModernBertConfig,
    Runtime,
)
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM
from modernbert_jax.model import Encoder

ROWS = tiny.rows([[4]], 4)


def tree(module):
    return jax.eval_shape(module.init, jax.random.key(0), *ROWS)["params"]


def size(params) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


# --- counts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_count_of_presets_is_that_of_the_tree(name):
    params = tree(MaskedLM(PRESETS[name]))
    assert size(params) == PRESETS[name].parameter_count()
    assert size(params["encoder"]) == PRESETS[name].parameter_count(head=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_bias": True},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"classifier_bias": True},
        {"decoder_bias": False},
        {"tie_word_embeddings": False},
        {"layer_types": (SLIDING, FULL, FULL, SLIDING, FULL)},
        {"norm_bias": True, "classifier_bias": True, "attention_bias": True, "mlp_bias": True},
    ],
)
def test_parameter_count_of_variants_is_that_of_the_tree(changes):
    config = tiny.config(**changes)
    assert size(tree(MaskedLM(config))) == config.parameter_count()
    assert size(tree(Encoder(config))) == config.parameter_count(head=False)


def test_published_parameter_counts():
    assert PRESETS["base"].parameter_count() == 149_655_232
    assert PRESETS["base"].parameter_count(head=False) == 149_014_272
    assert PRESETS["large"].parameter_count() == 395_881_664
    assert PRESETS["large"].parameter_count(head=False) == 394_781_696
    millions = {"17m": 16.80, "32m": 31.88, "68m": 68.14, "150m": 149.0, "400m": 394.8}
    for name, count in (millions | {"1b": 1028.1}).items():
        config = PRESETS[f"ettin-{name}"]
        assert config.parameter_count(head=False) / 1e6 == pytest.approx(count, rel=4e-4), name
        assert config.local_rope_theta == 160_000.0


# --- layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("every", range(1, 6))
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 6, 7, 12, 13, 22, 28, 29, 30])
def test_locate_puts_every_layer_in_one_place(layers, every):
    config = tiny.config(num_hidden_layers=layers, global_attn_every_n_layers=every)
    assert config.layer_kinds == tuple(FULL if i % every == 0 else SLIDING for i in range(layers))
    plan = config.scan_plan
    assert 1 + plan.groups * len(plan.pattern) + len(plan.tail) == layers
    assert len(plan.tail) < every, "a tail as long as a group could have been scanned"
    assert not plan.groups or plan.pattern == config.layer_kinds[1 : 1 + every]
    check_places(config)


@pytest.mark.parametrize("seed", range(10))
def test_locate_of_irregular_patterns(seed):
    rng = np.random.default_rng(seed)
    kinds = tuple(rng.choice([FULL, SLIDING], int(rng.integers(2, 12))).tolist())
    config = tiny.config(num_hidden_layers=len(kinds), layer_types=kinds)
    assert config.layer_kinds == kinds
    if config.layer_types is not None:
        assert config.scan_plan == ScanPlan((), 0, range(1, len(kinds)))
    check_places(config)


def check_places(config):
    seen = set()
    for i, kind in enumerate(config.layer_kinds):
        path, index = config.locate(i)
        assert (path, index) not in seen
        seen.add((path, index))
        if index is None:
            assert path == (f"layer_{i}",)
        else:
            assert path[0] == "groups" and path[1].startswith(block_name(kind, 0)[:-1])
            assert 0 <= index < config.scan_plan.groups


@pytest.mark.parametrize("changes", [{"num_hidden_layers": n} for n in (1, 3, 4, 5, 8)])
def test_the_tree_is_where_locate_says(changes):
    config = tiny.config(**changes)
    params = tree(Encoder(config))
    stacks = {}
    for i in range(config.num_hidden_layers):
        path, index = config.locate(i)
        block = params
        for key in path:
            block = block[key]
        stacks.setdefault(path, []).append(index)
        kernel = block["mlp"]["Wo"]["kernel"].shape
        assert kernel == (48, 32) if index is None else kernel == (config.scan_plan.groups, 48, 32)
    assert all(indices in ([None], [*range(len(indices))]) for indices in stacks.values())


@pytest.mark.parametrize(
    ("name", "groups"),
    [("base", 7), ("large", 9), ("ettin-17m", 2), ("ettin-32m", 3), ("ettin-68m", 6)],
)
def test_published_depths_have_no_tail(name, groups):
    assert PRESETS[name].scan_plan == ScanPlan((SLIDING, SLIDING, FULL), groups, range(0))


def test_a_regular_pattern_of_layer_types_is_recognised():
    regular = (FULL, SLIDING, FULL, SLIDING, FULL)
    config = tiny.config(layer_types=regular)
    assert config.layer_types is None and config.global_attn_every_n_layers == 2
    assert config == tiny.config(global_attn_every_n_layers=2)
    assert hash(config) == hash(tiny.config(layer_types=list(regular)))
    irregular = tiny.config(layer_types=(SLIDING,) * 5)
    assert irregular.layer_types == (SLIDING,) * 5


def test_windows_and_thetas_by_kind():
    config = tiny.config(global_rope_theta=8.0, local_rope_theta=5.0)
    assert (config.window(FULL), config.window(SLIDING)) == (None, 8)
    assert (config.rope(FULL), config.rope(SLIDING)) == ((8.0, None), (5.0, None))


# --- cost ------------------------------------------------------------------------------------


def test_flops_are_those_that_xla_counts():
    """One document that fits the window, unrolled and dense, so that XLA counts all of it."""
    length = 64
    config = tiny.config(
        hidden_size=128, intermediate_size=192, vocab_size=512, local_attention=2 * length
    )
    module = MaskedLM(config, Runtime(attention="dense", scan_layers=False))
    rows = tiny.rows([[length]], length)
    params = jax.eval_shape(module.init, jax.random.key(0), *rows)
    counted = jax.jit(module.apply).lower(params, *rows).compile().cost_analysis()["flops"]
    ours = length * config.flops_per_token(length, predicted=1.0)
    assert ours == pytest.approx(counted, rel=0.15)
    assert ours < counted  # norms, softmax and rotations are left out


def test_flops_follow_the_document_and_the_window():
    base = PRESETS["base"]
    matrices = base.parameter_count(head=False) - base.vocab_size * 768 - (2 * 22 + 1) * 768
    assert base.flops_per_token(0) == pytest.approx(2 * (matrices), rel=1e-3)
    # 8 global layers; the 14 local ones stop growing at 129 keys.
    assert base.flops_per_token(8192) - base.flops_per_token(1024) == 8 * 4 * 768 * (8192 - 1024)
    assert base.flops_per_token(129) - base.flops_per_token(128) == 22 * 4 * 768
    assert base.flops_per_token(130) - base.flops_per_token(129) == 8 * 4 * 768
    head = base.flops_per_token(100, predicted=0.3) - base.flops_per_token(100)
    assert head == pytest.approx(0.3 * 2 * 768 * (768 + 50368))


# --- values ----------------------------------------------------------------------------------


def test_configs_are_immutable_values():
    config = ModernBertConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        Runtime().dtype = "bfloat16"
    assert config == ModernBertConfig() == PRESETS["base"] and len({config, PRESETS["base"]}) == 1
    deeper = dataclasses.replace(config, num_hidden_layers=28)
    assert len(config.layer_kinds) == 22 and len(deeper.layer_kinds) == 28
    assert config.scan_plan.groups == 7 and deeper.scan_plan.groups == 9


def test_replace_keeps_or_checks_an_irregular_pattern():
    config = tiny.config(layer_types=(SLIDING, FULL, FULL, SLIDING, FULL))
    assert dataclasses.replace(config, local_attention=4).layer_types == config.layer_types
    with pytest.raises(UserError, match="layer_types has 5 entries"):
        dataclasses.replace(config, num_hidden_layers=6)


def test_presets_by_name():
    assert ModernBertConfig.preset("nano", vocab_size=5000).vocab_size == 5000
    with pytest.raises(UserError, match="'larg'; did you mean 'large'"):
        ModernBertConfig.preset("larg")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("hidden_size", -1),
        ("intermediate_size", 1.5),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 5),
        ("num_attention_heads", 32),
        ("global_attn_every_n_layers", 0),
        ("local_attention", 0),
        ("max_position_embeddings", 0),
        ("global_rope_theta", 0.0),
        ("local_rope_theta", -1.0),
        ("norm_eps", 0.0),
        ("initializer_range", 0.0),
        ("embedding_dropout", 1.0),
        ("attention_dropout", -0.1),
        ("mlp_dropout", 2.0),
        ("classifier_dropout", 1.0),
        ("hidden_activation", "geglu"),
        ("classifier_activation", "gelo"),
        ("classifier_pooling", "first"),
        ("pad_token_id", 96),
        ("pad_token_id", -1),
        ("layer_types", (FULL,)),
        ("layer_types", (FULL, "local", FULL, FULL, FULL)),
    ],
)
def test_a_wrong_value_is_refused_by_name(field, value):
    with pytest.raises(UserError) as error:
        tiny.config(**{field: value})
    assert str(error.value).startswith(f"{field} ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("dtype", "float16"), ("remat", "half")])
def test_a_wrong_runtime_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"^{field} is '{value}'; it must be"):
        Runtime(**{field: value})


def test_a_wrong_rope_scaling_is_refused():
    with pytest.raises(UserError, match="rope_type is 'ntk'"):
        RopeScaling(rope_type="ntk", factor=2.0, original_max_position_embeddings=8)
    with pytest.raises(UserError, match=r"factor is 0.5"):
        RopeScaling(rope_type="yarn", factor=0.5, original_max_position_embeddings=8)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_hugging_face_form(name):
    assert ModernBertConfig.from_hf(PRESETS[name].to_hf()) == PRESETS[name]
