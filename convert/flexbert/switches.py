"""The switches of the research code's FlexBERT, and the values that ModernBERT supports.

FlexBERT is a family of encoders: layers in parallel or in sequence, several norms, absolute
positions. Values that ModernBERT does not support are refused by the name of their switch.
"""

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "rotary_emb_base": 160_000.0,
    "local_attn_rotary_emb_base": -1.0,
    "sliding_window": -1,
    "global_attn_every_n_layers": -1,
    "attn_qkv_bias": False,
    "attn_out_bias": False,
    "mlp_in_bias": False,
    "mlp_out_bias": False,
    "decoder_bias": True,
    "tie_word_embeddings": True,
    "embed_dropout_prob": 0.0,
    "attn_out_dropout_prob": 0.0,
    "mlp_dropout_prob": 0.0,
    "pooling_type": "cls",
    "init_std": 0.02,
    "init_cutoff_factor": 2.0,
    "hidden_act": "gelu",
    "head_pred_act": "silu",
    "head_pred_bias": False,
    "head_pred_dropout": 0.0,
    "head_class_act": "silu",
    "head_class_bias": False,
    "head_class_dropout": 0.0,
    "norm_kwargs": {},
}
"""Defaults of missing keys for which ModernBERT supports several values."""

_ONLY: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "attention_layer": ("base", ("rope",)),
    "bert_layer": ("prenorm", ("prenorm", "compile_prenorm")),
    "mlp_layer": ("mlp", ("glu",)),
    "embedding_layer": ("absolute_pos", ("sans_pos",)),
    "encoder_layer": ("base", ("base",)),
    "normalization": ("rmsnorm", ("layernorm", "triton_layernorm")),
    "embed_norm": (True, (True,)),
    "final_norm": (False, (True,)),
    "skip_first_prenorm": (False, (True,)),
    "rotary_emb_interleaved": (False, (False,)),
    "rotary_emb_scale_base": (None, (None,)),
    "causal_mask": (False, (False,)),
    "is_decoder": (False, (False,)),
}
"""Default of a missing key, and the values that ModernBERT supports."""

_INITIAL = {
    "initial_attention_layer": "attention_layer",
    "initial_bert_layer": "bert_layer",
    "initial_mlp_layer": "mlp_layer",
}
"""Switches of the first layers, which must have the values of those of all layers."""

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""Activations by their name in the research code, with our names."""


def mistyped(content: Mapping[str, Any]) -> list[str]:
    """A problem for every key whose value has the wrong type."""
    problems = []
    for key, default in DEFAULTS.items():
        value = content.get(key, default)
        kinds = (int, float) if type(default) is float else (type(default),)
        if type(value) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            problems.append(f"{key} is {value!r:.80}; it must be {names}")
    return problems


def refused(content: Mapping[str, Any], head: str) -> list[str]:
    """A problem for every switch with a value that ModernBERT does not support."""
    problems = []

    def get(key: str, default: Any = None) -> Any:
        value = content.get(key, default)
        return _without_padding(value) if isinstance(value, str) else value

    for key, (default, allowed) in _ONLY.items():
        if get(key, default) not in allowed or isinstance(get(key, default), float):
            wanted = " or ".join(map(repr, allowed))
            problems.append(f"{key} is {get(key, default)!r:.80}; in ModernBERT it is {wanted}")
    for key, main in _INITIAL.items():
        if get(key) not in (None, get(main, _ONLY[main][0])):
            problems.append(f"{key} is {get(key)!r:.80}, unlike the {main} of the other layers")
    for one, other in (("attn_qkv_bias", "attn_out_bias"), ("mlp_in_bias", "mlp_out_bias")):
        if get(one, False) != get(other, False):
            problems.append(f"{one} and {other} differ; ModernBERT has both or neither")
    width = _head_width(content)
    for key in ("rotary_emb_dim", "local_attn_rotary_emb_dim"):
        if width and get(key) not in (None, width):
            problems.append(f"{key} is {get(key)!r:.80}; ModernBERT rotates all of {width}")
    for key in ("hidden_act", "head_class_act" if classifies(head) else "head_pred_act"):
        if get(key, DEFAULTS[key]) not in [*ACTIVATIONS]:  # a list: the value may be one
            known = ", ".join(ACTIVATIONS)
            problems.append(f"{key} is {get(key, DEFAULTS[key])!r:.80}; known: {known}")
    norm = "head_class_norm" if classifies(head) else "head_pred_norm"
    if head != "none" and get(norm, norm == "head_pred_norm") in (None, False):
        problems.append(f"{norm} is off; ModernBERT's heads have a norm")
    if isinstance(content.get("norm_kwargs", {}), Mapping):
        unknown = {*content.get("norm_kwargs", {})} - {"eps", "bias"}
        problems += [f"norm_kwargs has {key!r:.80}" for key in sorted(map(str, unknown))]
        problems += [
            f"norm_kwargs has {key} {value!r:.80}"
            for key, value in norm_arguments(content).items()
            if type(value) is not (bool if key == "bias" else float)
        ]
    return problems


def _without_padding(kind: str) -> str:
    """A kind of layer without the prefix that only selects its implementation."""
    return kind.removeprefix("unpadded_").removeprefix("padded_")


def classifies(head: str) -> bool:
    """True for the heads of the research code that pool."""
    return head in ("sequence_classification", "multiple_choice")


def _head_width(content: Mapping[str, Any]) -> int:
    sizes = [content.get(k, DEFAULTS[k]) for k in ("hidden_size", "num_attention_heads")]
    return sizes[0] // sizes[1] if all(type(s) is int and s > 0 for s in sizes) else 0


def norm_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the layer norms, with torch's defaults for missing ones."""
    arguments = content.get("norm_kwargs", {})
    return {"eps": arguments.get("eps", 1e-5), "bias": arguments.get("bias", True)}
