"""Convert the configuration of the research code's FlexBERT from and to `ModernBertConfig`.

FlexBERT is a family of encoders and ModernBERT is one of them. Unsupported switches are refused;
those that do not change the computation are kept in `Checkpoint.extra`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from modernbert_jax import hf_config
from modernbert_jax.config import FULL, SLIDING, ModernBertConfig
from modernbert_jax.errors import UserError

from . import switches

CLASSES = {
    "none": "FlexBertModel",
    "masked_lm": "FlexBertForMaskedLM",
    "sequence_classification": "FlexBertForSequenceClassification",
    "multiple_choice": "FlexBertForMultipleChoice",
}
"""Heads of the research code, with their classes."""

_MODULE = "src.bert_layers.model"

_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "rotary_emb_base": "global_rope_theta",
    "attn_qkv_bias": "attention_bias",
    "mlp_in_bias": "mlp_bias",
    "decoder_bias": "decoder_bias",
    "tie_word_embeddings": "tie_word_embeddings",
    "embed_dropout_prob": "embedding_dropout",
    "attn_out_dropout_prob": "attention_dropout",
    "mlp_dropout_prob": "mlp_dropout",
    "pooling_type": "classifier_pooling",
    "init_std": "initializer_range",
    "init_cutoff_factor": "initializer_cutoff_factor",
}
"""Keys of the research code, with our fields of the same meaning."""

_HEAD_FIELDS = {
    "act": "classifier_activation",
    "bias": "classifier_bias",
    "dropout": "classifier_dropout",
}
"""Suffixes of `head_pred_*` or `head_class_*`, depending on the head, with our fields."""

_FOREIGN_ACTIVATIONS = {
    ours: research for research, ours in [*switches.ACTIVATIONS.items()][::-1]
} | {
    "gelu_new": "gelu_tanh",
    "swish": "silu",
}
"""Our activations, with their names in the research code."""

_TRAINED: dict[str, Any] = {
    "attention_layer": "rope",
    "attention_probs_dropout_prob": 0.0,
    "bert_layer": "prenorm",
    "compile_model": True,
    "embed_norm": True,
    "embedding_layer": "sans_pos",
    "encoder_layer": "base",
    "final_norm": True,
    "init_method": "full_megatron",
    "init_small_embedding": False,
    "initial_attention_layer": None,
    "initial_bert_layer": None,
    "initial_mlp_layer": None,
    "local_attn_rotary_emb_dim": None,
    "loss_function": "fa_cross_entropy",
    "loss_kwargs": {"reduction": "mean"},
    "masked_prediction": True,
    "mlp_layer": "glu",
    "model_type": "bert",
    "normalization": "layernorm",
    "num_initial_layers": 1,
    "pad_logits": False,
    "padding": "unpadded",
    "rotary_emb_dim": None,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "skip_first_prenorm": True,
    "unpad_embeddings": True,
    "use_fa2": True,
    "use_sdpa_attn_mask": False,
}
"""Switches of ModernBERT's own training, for checkpoints that do not come from FlexBERT."""


def read(content: Mapping[str, Any], head: str, **more: Any) -> ModernBertConfig:
    """Read the architecture that a research configuration describes.

    Args:
        content: the configuration in a Composer checkpoint.
        head: a key of `CLASSES`.
        more: keys of a Hugging Face configuration that the research code does not have.

    Raises:
        UserError: one message with every key that ModernBERT does not support.
    """
    get = {
        **switches.DEFAULTS,
        **{k: v for k, v in content.items() if k in switches.DEFAULTS},
    }.__getitem__
    problems = [*switches.mistyped(content), *switches.refused(content, head)]
    if problems:
        raise UserError("; ".join(problems))
    pick = "class" if switches.classifies(head) else "pred"
    fields = {ours: get(key) for key, ours in _FIELDS.items()}
    fields |= {ours: get(f"head_{pick}_{key}") for key, ours in _HEAD_FIELDS.items()}
    for name, key in (("hidden_activation", "hidden_act"), ("classifier_activation", None)):
        fields[name] = switches.ACTIVATIONS[get(key) if key else fields[name]]
    fields |= {f"norm_{k}": v for k, v in switches.norm_arguments(content).items()}
    return hf_config.read({**fields, **_attention(get), **more})


def write(config: ModernBertConfig, head: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Write the research configuration of an architecture.

    Args:
        config: the architecture.
        head: of the checkpoint.
        known: the research configuration that it was read from, whose other keys are kept; empty
            if there is none.

    Raises:
        UserError: one message with everything that the research code cannot express.
    """
    problems = []
    if config.causal:
        problems.append("a decoder; the research code here has encoders")
    elif head not in CLASSES:
        problems.append(f"head is {head}; the research code has {', '.join(CLASSES)}")
    if config.layer_types is not None and set(config.layer_kinds) != {SLIDING}:
        problems.append("layer_types is irregular; the research code has every n-th layer global")
    if config.global_rope_scaling or config.local_rope_scaling:
        problems.append("rope scaling; the research code has none")
    if problems:
        raise UserError(f"flexbert: {'; '.join(problems)}")
    if known and _same(known, config, head):
        return dict(known)
    written = {**(known or _TRAINED)}
    written |= {key: getattr(config, ours) for key, ours in _FIELDS.items()}
    written |= {"attn_out_bias": config.attention_bias, "mlp_out_bias": config.mlp_bias}
    for pick in ("pred", "class"):
        for key, ours in _HEAD_FIELDS.items():
            written[f"head_{pick}_{key}"] = getattr(config, ours)
        written[f"head_{pick}_act"] = _FOREIGN_ACTIVATIONS[config.classifier_activation]
        written[f"head_{pick}_norm"] = True
    written["hidden_act"] = _FOREIGN_ACTIVATIONS[config.hidden_activation]
    written["norm_kwargs"] = {"eps": config.norm_eps, "bias": config.norm_bias}
    written |= _write_attention(config)
    return written


def class_path(head: str) -> str:
    """Import path of the class of a head in the research code."""
    return f"{_MODULE}.{CLASSES[head]}"


def _same(known: Mapping[str, Any], config: ModernBertConfig, head: str) -> bool:
    """True if a research configuration already describes this architecture."""
    kept = ("bos", "cls", "eos", "sep", "pad")
    more: dict[str, Any] = {
        f"{role}_token_id": getattr(config, f"{role}_token_id") for role in kept
    }
    more["max_position_embeddings"] = config.max_position_embeddings
    try:
        return read(known, head, **more) == config
    except UserError:
        return False


def _attention(get: Callable[[str], Any]) -> dict[str, Any]:
    """Fields for the kinds of layers, the sliding window, and the local theta."""
    every, window = get("global_attn_every_n_layers"), get("sliding_window")
    fields = {"local_rope_theta": get("local_attn_rotary_emb_base")}
    if window <= 0:
        return {**fields, "global_attn_every_n_layers": 1}
    fields["local_attention"] = window
    if every <= 0:
        return {**fields, "layer_types": [SLIDING] * max(get("num_hidden_layers"), 1)}
    return {**fields, "global_attn_every_n_layers": every}


def _write_attention(config: ModernBertConfig) -> dict[str, Any]:
    kinds = {*config.layer_kinds}
    if kinds == {FULL}:
        off = ("global_attn_every_n_layers", "sliding_window", "local_attn_rotary_emb_base")
        return dict.fromkeys(off, -1)
    every = -1 if kinds == {SLIDING} else config.global_attn_every_n_layers
    return {
        "global_attn_every_n_layers": every,
        "sliding_window": config.local_attention,
        "local_attn_rotary_emb_base": config.local_rope_theta,
    }
