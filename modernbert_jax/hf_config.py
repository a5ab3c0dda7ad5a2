"""Hugging Face's `config.json`: reads the forms of versions 4 and 5, writes a superset of both.

transformers 4 has flat keys (`global_rope_theta`, `global_attn_every_n_layers`, ...); version 5
replaces them by `layer_types` and `rope_parameters`. Version 4 silently misreads files that have
only the new keys, so both forms are written.
"""

import dataclasses
import difflib
import math
import typing
import warnings
from collections.abc import Mapping
from typing import Any

from modernbert_jax.architecture import FULL, SLIDING, Architecture, LayerKind, RopeScaling
from modernbert_jax.errors import UserError, did_you_mean

_DERIVED = ("causal", "layer_types", "global_rope_scaling", "local_rope_scaling")
_PLAIN = {
    name: hint
    for name, hint in typing.get_type_hints(Architecture).items()
    if name in {f.name for f in dataclasses.fields(Architecture)} and name not in _DERIVED
}
"""Types of the fields that have the same name in the file."""

_CLASS_DEFAULTS = {"classifier_pooling": "cls"}
"""Defaults of absent keys that differ from ours."""

_OLD_DECODER_THETA = 160_000.0
"""Local theta of a decoder in a flat file without one. Version 5 always writes its own."""

MODEL_TYPES = {False: "modernbert", True: "modernbert-decoder"}
"""Model type by whether the model is causal."""

_CONSTANT = {
    "deterministic_flash_attn": False,
    "position_embedding_type": "sans_pos",
    "reference_compile": False,
    "repad_logits_with_grad": False,
    "sparse_pred_ignore_index": -100,
    "sparse_prediction": False,
    "transformers_version": "4.48.0",
}
"""Keys that have no meaning here but that other readers expect."""

_ALIASES = {"layer_norm_eps": "norm_eps"}
_STRUCTURED = ("model_type", "layer_types", "rope_parameters", "rope_scaling", "sliding_window")
_REWRITTEN = ("architectures", "dtype", "torch_dtype", "transformers_version")
KNOWN = {*_PLAIN, *_ALIASES, *_STRUCTURED, *_REWRITTEN}

CARRIED = {
    **dict.fromkeys(_CONSTANT, "chooses among ways to compute the same"),
    "id2label": "names outputs; `Checkpoint.label_names` reads it",
    "label2id": "is the inverse of id2label",
    "num_labels": "counts outputs; `Checkpoint.labels` reads it",
    "problem_type": "chooses the loss, which the task does here",
    "use_cache": "changes speed only",
}
"""Keys that libraries write and that do not concern the architecture, each with the reason."""

_INHERIT = (None, 0, -1)
"""Values of `local_rope_theta` that mean the global one: null in version 4, -1 in research
code."""

_ROPE_KEYS = {
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
    "llama3": (
        "factor",
        "original_max_position_embeddings",
        "low_freq_factor",
        "high_freq_factor",
    ),
}

_LOOKALIKES = {
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa",
    "eurobert": "EuroBERT",
    "modernvbert": "ModernVBERT, which has a vision tower,",
    "neobert": "NeoBERT",
    "ultrabert": "UltraBERT",
}


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `Architecture` in a `config.json`; the new form overrides flat keys.

    Raises:
        UserError: invalid keys; the message lists all of them.
    """
    causal = _model_type(config) == MODEL_TYPES[True]
    if config.get("quantization_config"):
        raise UserError(
            "config.json: quantization_config: quantised weights are not read; save the model in"
            " float32, bfloat16 or float16"
        )
    values = {_ALIASES[k]: v for k, v in config.items() if k in _ALIASES}
    values.update({k: _first_id(k, v) for k, v in config.items() if k in _PLAIN})
    problems = [*_misspelt(config)]
    fields: dict[str, Any] = {"causal": causal, **_CLASS_DEFAULTS}
    if causal and not {"local_rope_theta", "rope_parameters"} & {*config}:
        fields["local_rope_theta"] = _OLD_DECODER_THETA
    for name, value in values.items():
        if value is None and type(None) not in typing.get_args(_PLAIN[name]):
            continue
        try:
            fields[name] = _typed(name, value)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("config.json: " + "; ".join(problems))
    side = config.get("sliding_window")
    if isinstance(side, int) and side != fields.get("local_attention", 128) // 2:
        fields["local_attention"] = 2 * side
    if config.get("layer_types") is not None:
        if not isinstance(config["layer_types"], list | tuple):
            raise UserError("config.json: layer_types must be a list with one kind per layer")
        fields["layer_types"] = tuple(config["layer_types"])
    fields |= _rope_fields(config, fields)
    if fields.get("local_rope_theta", values.get("local_rope_theta", 1)) in _INHERIT:
        fields["local_rope_theta"] = fields.get("global_rope_theta", 160_000.0)
    return fields


def unknown_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that have no meaning here; checkpoints carry them and write them back.

    Lists of token ids are among them: the architecture has the first id only.
    """
    return {k: v for k, v in config.items() if k not in KNOWN or _first_id(k, v) is not v}


def _first_id(key: str, value: Any) -> Any:
    """The first of several token ids, such as those that end a text; any other value as it is."""
    several = key.endswith("_token_id") and isinstance(value, list) and value
    return value[0] if several else value


def write(config: Architecture, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` that transformers 4 and 5 and readers in other languages understand."""
    # Version 5 refuses integers in float fields: 10000 must become 10000.0.
    flat = {name: _typed(name, getattr(config, name)) for name in _PLAIN}
    scalings = {FULL: config.global_rope_scaling, SLIDING: config.local_rope_scaling}
    written = {
        **_CONSTANT,
        **flat,
        "model_type": MODEL_TYPES[config.causal],
        "layer_norm_eps": config.norm_eps,
        "layer_types": list(config.layer_kinds),
        "rope_parameters": {k: _write_rope(config.rope(k)[0], s) for k, s in scalings.items()},
        **keys,
    }
    if config.causal:
        written |= {"sliding_window": config.local_attention // 2, "use_cache": True, **keys}
        if config.local_rope_theta != config.global_rope_theta and set(config.layer_kinds) != {
            FULL
        }:
            warnings.warn(
                "transformers 4 has the global theta in all layers of a decoder; use version 5 or"
                " newer for this model",
                stacklevel=3,
            )
    elif config.layer_types is not None:
        del written["global_attn_every_n_layers"]
        warnings.warn(
            "layer_types is irregular: transformers 4 cannot express it and would read the file"
            " as every third layer global; use transformers 5 or newer for this model",
            stacklevel=3,
        )
    if any(scalings.values()):
        warnings.warn(
            "rope scaling is ignored by transformers 4; use version 5 or newer for this model",
            stacklevel=3,
        )
    return dict(sorted(written.items()))


def _model_type(config: Mapping[str, Any]) -> str:
    kind = config.get("model_type", "modernbert")
    if kind in MODEL_TYPES.values():
        return kind
    name = _LOOKALIKES.get(str(kind).lower(), repr(kind))
    raise UserError(
        f"config.json: model_type is {name}, not ModernBERT;"
        f" {' and '.join(map(repr, MODEL_TYPES.values()))} are read"
    )


def _misspelt(config: Mapping[str, Any]) -> list[str]:
    """Problems with unknown keys that resemble an absent known key."""
    absent = sorted(set(_PLAIN) - set(config))
    problems = []
    for key in sorted(unknown_keys(config)):
        near = difflib.get_close_matches(key, absent, n=1, cutoff=0.9)
        if near:
            problems.append(f"unknown key {key!r}; {did_you_mean(key, near)}")
    return problems


def _typed(name: str, value: Any) -> Any:
    """The value in its field's type; only integers are converted, to floats.

    Raises:
        UserError: a value of another type.
    """
    allowed = typing.get_args(_PLAIN[name]) or (_PLAIN[name],)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1000 else math.inf
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        names = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
        raise UserError(f"{name} is {value!r}; it must be {names}")
    return value


def _rope_fields(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Thetas and scalings of `rope_parameters` and `rope_scaling`, where the file has them."""
    parameters, shared = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if not _nested(parameters) or not {*parameters} <= {FULL, SLIDING}:
        raise UserError(
            f"config.json: rope_parameters must map {FULL!r} and {SLIDING!r} to their parameters"
        )
    if not isinstance(shared, Mapping):
        raise UserError("config.json: rope_scaling must be an object with a rope_type")
    length = fields.get("max_position_embeddings", 8192)
    rope: dict[str, Any] = {}
    for kind, prefix in ((FULL, "global"), (SLIDING, "local")):
        own = {**shared, **(parameters.get(kind) or {})}
        if own.get("rope_theta") is not None:
            rope[f"{prefix}_rope_theta"] = _typed(f"{prefix}_rope_theta", own["rope_theta"])
        elif "rope_theta" in own and kind == SLIDING:
            rope["local_rope_theta"] = None  # the global theta, as for the flat key
        rope[f"{prefix}_rope_scaling"] = _read_scaling(kind, own, length)
    return rope


def _nested(value: Any) -> bool:
    """Whether a value maps names to objects or null."""
    return isinstance(value, Mapping) and all(
        v is None or isinstance(v, Mapping) for v in value.values()
    )


def _read_scaling(kind: LayerKind, rope: Mapping[str, Any], length: int) -> RopeScaling | None:
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type == "default":
        return None
    known = {f.name for f in dataclasses.fields(RopeScaling)}
    unknown = {*rope} - known - {"rope_theta", "type"}
    if unknown and rope_type not in ("dynamic", "longrope"):  # RopeScaling refuses these
        raise UserError(f"config.json: {kind} rope has keys that are not read: {sorted(unknown)}")
    if rope.get("factor") is None:
        raise UserError(f"config.json: {kind} rope_type {rope_type!r} needs a 'factor'")
    values = {k: v for k, v in rope.items() if k in known and v is not None}
    for key, value in values.items():
        number = (
            isinstance(value, int | float) and abs(value) < 2**1000
        )  # JSON integers are unbounded
        if key != "rope_type" and (isinstance(value, bool) or not number):
            raise UserError(f"config.json: {kind} rope's {key} is {value!r}; it must be a number")
    values |= {"rope_type": rope_type, "factor": float(rope["factor"])}
    return RopeScaling(**{"original_max_position_embeddings": length} | values)


def _write_rope(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {"rope_theta": float(theta), "rope_type": "default"}
    written = {key: getattr(scaling, key) for key in _ROPE_KEYS[scaling.rope_type]}
    if scaling.attention_factor is not None:
        written["attention_factor"] = scaling.attention_factor
    return {"rope_theta": float(theta), "rope_type": scaling.rope_type, **written}
