"""Keys in the files about modules: those that are read, and those that are ignored on purpose.

Any other key could change results and is refused by name.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from modernbert_jax.errors import UserError

READ: dict[str, tuple[str, ...]] = {
    "settings": (
        *("model_type", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim"),
        *(
            "max_active_dims",
            "activation_fn",
            "query_prefix",
            "document_prefix",
            "query_length",
            "document_length",
        ),
        *("attend_to_expansion_tokens", "skiplist_words", "do_query_expansion"),
    ),
    "Transformer": (
        *("max_seq_length", "do_lower_case", "query_length", "document_length"),
        "query_expansion",
    ),
    "Pooling": (
        *("pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens"),
        *("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"),
        *("pooling_mode_lasttoken", "pooling_mode", "include_prompt"),
    ),
    "Dense": ("in_features", "out_features", "bias", "activation_function", "use_residual"),
    "LayerNorm": ("dimension",),
    "Normalize": (),
    "MultiVectorMask": ("skiplist_words", "skiplist_tasks", "keep_only_token_ids"),
    "SpladePooling": ("pooling_strategy", "activation_function"),
    "HierarchicalTokenPooling": (
        *("pool_factor", "num_protected_tokens", "normalize_embeddings", "tasks"),
    ),
}
"""Keys that are honoured, by class of module, and "settings" of the whole model."""

IGNORED: dict[str, dict[str, str]] = {
    "settings": {
        "__version__": "says what wrote the file",
        "keep_in_fp32_modules": "parameters and heads are float32",
    },
    "Transformer": {
        "transformer_task": "follows from the model's head",
        "modality_config": "follows from the model's head; texts are the only modality",
        "module_output_name": "follows from the order of the modules",
        "unpad_inputs": "changes speed only; rows have no padding between documents",
    },
    "Pooling": {
        "word_embedding_dimension": "is the encoder's width",
        "embedding_dimension": "is the encoder's width",
    },
    "Dense": {
        "module_input_name": "follows from the order of the modules",
        "module_output_name": "follows from the order of the modules",
    },
    "Normalize": {
        "module_input_name": "follows from the order of the modules",
        "module_output_name": "follows from the order of the modules",
    },
    "LayerNorm": {},
    "MultiVectorMask": {},
    "SpladePooling": {
        "word_embedding_dimension": "is the size of the vocabulary",
        "embedding_dimension": "is the size of the vocabulary",
    },
    "HierarchicalTokenPooling": {},
}
"""Keys without an effect here, on purpose, each with the reason."""

NEUTRAL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("model_args", "model_kwargs"),
        ("torch_dtype", "dtype", "attn_implementation", "device_map", "low_cpu_mem_usage"),
    ),
    **dict.fromkeys(("tokenizer_args", "processor_kwargs"), ("padding_side", "use_fast")),
    **dict.fromkeys(("config_args", "config_kwargs"), ()),
    "processing_kwargs": (),
}
"""Keys of a Transformer that hold objects, with those of their keys that change no result."""


def check(file: str, kind: str, values: Mapping[str, Any]) -> None:
    """Raise `UserError` for keys of a file that are neither read nor ignored on purpose.

    Of settings, which the libraries let pass, it only warns.

    Args:
        file: its name in errors.
        kind: a key of `READ`.
        values: its content.
    """
    unknown = [
        key
        for key, value in values.items()
        if key not in READ[kind] and key not in IGNORED[kind] and value is not None
    ]
    if kind == "Transformer":
        unknown = [
            key
            for key in unknown
            if key not in NEUTRAL
            or not isinstance(values[key], Mapping)
            or not {*values[key]} <= {*NEUTRAL[key]}
        ]
    if not unknown:
        return
    listed = ", ".join(f"{key} {values[key]!r:.60}" for key in unknown)
    if kind == "settings":
        warnings.warn(f"{file}: {listed}: not read", stacklevel=4)
        return
    raise UserError(
        f"{file}: {listed}: not supported, and could change results; remove it if it does not"
    )
