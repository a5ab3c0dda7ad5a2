"""`config.json` of transformers 4 and 5: how each form is read, and the superset written."""

import warnings

import pytest
import tiny

from modernbert_jax.architecture import FULL, SLIDING, RopeScaling
from modernbert_jax.config import PRESETS, ModernBertConfig
from modernbert_jax.errors import UserError

SMALL = {"num_hidden_layers": 3, "model_type": "modernbert"}
PATTERN = [FULL, SLIDING, FULL]
ROPE = {"rope_type": "default"}


def read(**keys):
    return ModernBertConfig.from_hf(SMALL | keys)


def test_flat_keys_alone():
    config = read(
        global_attn_every_n_layers=2, global_rope_theta=80_000.0, local_rope_theta=20_000.0
    )
    assert config.layer_kinds == (FULL, SLIDING, FULL)
    assert (config.global_rope_theta, config.local_rope_theta) == (80_000.0, 20_000.0)


def test_defaults_are_those_of_the_class():
    config = read()
    assert config.layer_kinds == (FULL, SLIDING, SLIDING)
    assert (config.global_rope_theta, config.local_rope_theta) == (160_000.0, 10_000.0)
    assert config.classifier_pooling == "cls"  # the released files say "mean" themselves


def test_the_new_form_wins():
    config = read(
        layer_types=PATTERN,
        rope_parameters={FULL: {**ROPE, "rope_theta": 5.0}, SLIDING: {**ROPE, "rope_theta": 6.0}},
        global_attn_every_n_layers=3,
        global_rope_theta=1.0,
        local_rope_theta=2.0,
    )
    assert config.layer_kinds == tuple(PATTERN)
    assert (config.global_rope_theta, config.local_rope_theta) == (5.0, 6.0)


@pytest.mark.parametrize(("flat", "want"), [({}, 10_000.0), ({"local_rope_theta": 7.0}, 7.0)])
def test_half_of_rope_parameters(flat, want):
    config = read(rope_parameters={FULL: {**ROPE, "rope_theta": 5.0}}, **flat)
    assert (config.global_rope_theta, config.local_rope_theta) == (5.0, want)


@pytest.mark.parametrize("theta", [None, -1, 0])
def test_no_local_theta_is_the_global_one(theta):
    assert read(local_rope_theta=theta, global_rope_theta=9.0).local_rope_theta == 9.0
    assert read(local_rope_theta=theta).local_rope_theta == 160_000.0
    rope = {FULL: {**ROPE, "rope_theta": 5.0}}
    assert read(local_rope_theta=theta, rope_parameters=rope).local_rope_theta == 5.0
    rope[SLIDING] = {**ROPE, "rope_theta": theta}
    assert read(local_rope_theta=3.0, rope_parameters=rope).local_rope_theta == 5.0


def test_rope_scaling_is_of_both_kinds():
    config = read(rope_scaling={"rope_type": "yarn", "factor": 4}, max_position_embeddings=512)
    scaling = RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=512)
    assert config.global_rope_scaling == config.local_rope_scaling == scaling


def test_small_things():
    assert set(read(global_attn_every_n_layers=1).layer_kinds) == {FULL}
    assert read(sliding_window=17).local_attention == 34
    assert read(local_attention=129).window(SLIDING) == 129
    assert read(pad_token_id=None).pad_token_id is None
    assert read(norm_eps=1).norm_eps == 1.0
    assert read(layer_norm_eps=1e-3).norm_eps == 1e-3
    assert read(layer_norm_eps=1e-3, norm_eps=1e-4).norm_eps == 1e-4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope_parameters": {"rope_theta": 1.0}}, "rope_parameters must map"),
        ({"rope_parameters": {FULL: 3}}, "rope_parameters must map"),
        ({"rope_parameters": [1]}, "rope_parameters must map"),
        ({"rope_scaling": "yarn"}, "rope_scaling must be an object"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "needs a 'factor'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": "a"}}, "factor is 'a'; it must be a num"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "'dynamic' is not supported: its frequencies follow the longest sequence of a batch",
        ),
        (
            {"rope_scaling": {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0]}},
            "'longrope' is not supported",
        ),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "a": 1}}, r"not read: \['a'\]"),
        ({"layer_types": 3}, "layer_types must be a list"),
        ({"layer_types": [FULL]}, "layer_types has 1 entries"),
        ({"layer_types": [FULL, FULL, "odd"]}, "layer_types has 'odd'"),
        ({"hidden_size": "768"}, "hidden_size is '768'; it must be int"),
        ({"norm_bias": 1}, "norm_bias is 1; it must be bool"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"hidden_sizes": 3}, "unknown key 'hidden_sizes'; did you mean 'hidden_size'"),
        ({"model_type": "bert"}, "model_type is 'bert', not ModernBERT"),
        ({"model_type": "eurobert"}, "model_type is EuroBERT, not ModernBERT"),
        ({"model_type": "modernvbert"}, "model_type is ModernVBERT, which has a vision tower"),
    ],
)
def test_what_is_refused(keys, message):
    with pytest.raises(UserError, match=message):
        read(**keys)


def test_all_wrong_values_are_named():
    with pytest.raises(UserError, match=r"hidden_size is 'a'.*; norm_eps is 'b'"):
        read(hidden_size="a", norm_eps="b")


SCALED = {
    "global_rope_scaling": RopeScaling(
        rope_type="llama3", factor=8.0, original_max_position_embeddings=64, low_freq_factor=2.0
    ),
    "local_rope_scaling": RopeScaling(
        rope_type="yarn", factor=2.0, original_max_position_embeddings=99, attention_factor=1.5
    ),
}


@pytest.mark.parametrize(
    "config",
    [
        *PRESETS.values(),
        tiny.config(global_attn_every_n_layers=2, local_attention=16),
        tiny.config(**SCALED),
        tiny.config(layer_types=(SLIDING, FULL, FULL, SLIDING, FULL)),
        tiny.config(pad_token_id=None, tie_word_embeddings=False, norm_eps=1e-7, mlp_bias=True),
    ],
)
def test_what_is_written_reads_back(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = config.to_hf()
        assert ModernBertConfig.from_hf(written) == config
        new = {k: v for k, v in written.items() if not k.endswith(("_theta", "_n_layers"))}
    assert ModernBertConfig.from_hf(new) == config


VERSION_4 = """architectures attention_bias attention_dropout bos_token_id classifier_activation
classifier_bias classifier_dropout classifier_pooling cls_token_id decoder_bias
deterministic_flash_attn embedding_dropout eos_token_id global_attn_every_n_layers
global_rope_theta hidden_activation hidden_size initializer_cutoff_factor initializer_range
intermediate_size layer_norm_eps local_attention local_rope_theta max_position_embeddings mlp_bias
mlp_dropout model_type norm_bias norm_eps num_attention_heads num_hidden_layers pad_token_id
position_embedding_type reference_compile repad_logits_with_grad sep_token_id
sparse_pred_ignore_index sparse_prediction tie_word_embeddings torch_dtype transformers_version
vocab_size"""


def test_the_superset():
    config = tiny.config(global_rope_theta=80_000, norm_eps=1e-6)
    written = config.to_hf(architectures=["ModernBertModel"], torch_dtype="float32", my_key=1)
    assert {*written} == {*VERSION_4.split(), "layer_types", "rope_parameters", "my_key"}
    assert list(written) == sorted(written)
    assert written["layer_norm_eps"] == written["norm_eps"] == 1e-6
    assert written["layer_types"] == list(config.layer_kinds)
    assert written["rope_parameters"] == {
        FULL: {"rope_theta": 80_000.0, "rope_type": "default"},
        SLIDING: {"rope_theta": 10_000.0, "rope_type": "default"},
    }
    assert written["transformers_version"] == "4.48.0"
    # Version 5 is strict: a float field takes no integer.
    assert isinstance(written["global_rope_theta"], float)
    assert isinstance(written["rope_parameters"][FULL]["rope_theta"], float)


def test_what_version_4_cannot_say_warns():
    irregular = tiny.config(layer_types=(SLIDING, FULL, FULL, SLIDING, FULL))
    with pytest.warns(UserWarning, match="transformers 4 cannot express it"):
        assert "global_attn_every_n_layers" not in irregular.to_hf()
    with pytest.warns(UserWarning, match="rope scaling is ignored by transformers 4"):
        tiny.config(**SCALED).to_hf()


DECODER = {"model_type": "modernbert-decoder"}


@pytest.mark.parametrize(
    ("keys", "window", "theta"),
    [
        ({}, 128, 160_000.0),
        ({"sliding_window": 32}, 64, 160_000.0),
        ({"sliding_window": 32, "local_attention": 128}, 64, 160_000.0),
        ({"sliding_window": 64, "local_attention": 129}, 129, 160_000.0),
        ({"local_rope_theta": 10_000.0}, 128, 10_000.0),
        ({"rope_parameters": {FULL: ROPE}}, 128, 10_000.0),
    ],
)
def test_a_decoder_s_window_and_theta(keys, window, theta):
    config = read(**DECODER, **keys)
    assert config.causal
    assert (config.local_attention, config.local_rope_theta) == (window, theta)
    # Its own token is one of the window // 2 that it sees.
    assert config.window(SLIDING) // 2 == window // 2 - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "transformers 4 has the global theta")
        written = config.to_hf()
    assert (written["model_type"], written["sliding_window"]) == (
        DECODER["model_type"],
        window // 2,
    )
    assert read(**written) == config


def test_a_decoder_with_irregular_layers_is_for_both_versions(recwarn):
    config = read(**DECODER | {"num_hidden_layers": 3}, layer_types=[FULL, FULL, SLIDING])
    assert config.to_hf()["layer_types"] == [FULL, FULL, SLIDING]
    assert not recwarn.list


def test_a_decoder_with_two_thetas_is_for_version_5():
    config = read(**DECODER, local_rope_theta=10_000.0)
    with pytest.warns(UserWarning, match="transformers 4 has the global theta in all layers"):
        assert config.to_hf()["local_rope_theta"] == 10_000.0
