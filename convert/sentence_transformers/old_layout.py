"""The older layout of the files about modules, for models that come without it.

For late-interaction models it is PyLate's. Files that are in it already are kept as they are.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_json
from modernbert_jax.pipeline import Dense, LateInteraction, Normalize, Pipeline, Pooling
from modernbert_jax.tokenizer import Tokenizer

from .. import module_files
from ..checkpoint import Checkpoint
from ..module_files import CONFIG, MODULES, POOLING_KEYS, SETTINGS, TRANSFORMER, json_of

VERSIONS = {"sentence_transformers": "3.4.1", "transformers": "4.48.0", "pytorch": "2.5.1"}
"""Versions that a new directory declares: the first that know ModernBERT."""

_TYPES = {
    **{n: f"sentence_transformers.models.{n}" for n in ("Transformer", "Pooling", "Normalize")},
    "Dense": "sentence_transformers.models.Dense",
    "TokenDense": "pylate.models.Dense.Dense",
}

_NEW_KEYS = {"transformer_task", "embedding_dimension", "module_input_name"}
"""Keys that only the later layout has."""

Modules = list[tuple[str, str, dict[str, Any] | None]]
"""Folder, key of `_TYPES` and configuration of each module."""


def in_old_layout(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with files that all versions read; a plain model gets mean pooling.

    Raises:
        UserError: the older layout cannot express the modules.
    """
    pipeline = checkpoint.pipeline
    if pipeline is None and checkpoint.head == "sequence_classification":
        return checkpoint  # a reranker needs no modules
    if pipeline is None:
        pipeline = Pipeline(kind="embedding", steps=(Pooling(modes=("mean",)),))
    elif MODULES not in checkpoint.files or _is_old(checkpoint.files):
        return checkpoint
    about_modules = {*module_files.files_of(checkpoint.files)}
    files = {name: x for name, x in checkpoint.files.items() if name not in about_modules}
    if pipeline.kind == "reranker":
        own = {"version": "4.1.0"}
        own |= {"activation_fn": pipeline.activation} if pipeline.activation else {}
        extra = {**checkpoint.extra, "sentence_transformers": own}
        return dataclasses.replace(checkpoint, files=files, extra=extra)
    settings = {"__version__": VERSIONS, **json_of(checkpoint.files, SETTINGS)}
    longest = checkpoint.config.max_position_embeddings
    length = min(pipeline.max_length or longest, longest)
    if pipeline.late is None:
        described = _embedding(pipeline, checkpoint.config.hidden_size)
        settings |= {
            "similarity_fn_name": pipeline.similarity or "cosine",
            "prompts": dict(pipeline.prompts),
            "default_prompt_name": pipeline.default_prompt,
        }
    else:
        described = _late_interaction(pipeline)
        settings |= _pylate_settings(pipeline.late, checkpoint.tokenizer, length)
    listed: list[dict[str, Any]]
    listed = [{"idx": 0, "name": "0", "path": "", "type": _TYPES["Transformer"]}]
    for path, kind, config in described:
        number = len(listed)
        listed.append({"idx": number, "name": str(number), "path": path, "type": _TYPES[kind]})
        if config is not None:
            files[f"{path}/{CONFIG}"] = _json(config, 4)
    files[MODULES] = _json(listed)
    files[SETTINGS] = _json(settings)
    lower = {"do_lower_case": pipeline.lower_case}
    files[TRANSFORMER] = _json({"max_seq_length": length, **lower}, 4)
    return dataclasses.replace(checkpoint, files=files)


def _is_old(files: Mapping[str, bytes]) -> bool:
    types = [entry["type"] for entry in parse_json(files[MODULES], MODULES)]
    configs = [json_of(files, name) for name in module_files.files_of(files)[2:]]
    return {*types} <= {*_TYPES.values()} and not any(_NEW_KEYS & {*c} for c in configs)


def _embedding(pipeline: Pipeline, width: int) -> Modules:
    modules: Modules = []
    for number, step in enumerate(pipeline.steps, start=1):
        if isinstance(step, Pooling):
            order = [mode for mode in POOLING_KEYS.values() if mode in step.modes]
            if order != list(step.modes):
                raise UserError(
                    f"poolings {', '.join(step.modes)} cannot be written: sentence-transformers 5"
                    f" concatenates them as {', '.join(order)}"
                )
            config: dict[str, Any] = {"word_embedding_dimension": width}
            config |= {key: mode in order for key, mode in POOLING_KEYS.items()}
            config |= {"include_prompt": step.include_prompt}
            modules.append((f"{number}_Pooling", "Pooling", config))
        elif isinstance(step, Dense):
            modules.append((step.path, "Dense", _dense(step)))
        else:
            modules.append((f"{number}_Normalize", "Normalize", None))
    return modules


def _dense(step: Dense) -> dict[str, Any]:
    config = {
        "in_features": step.in_features,
        "out_features": step.out_features,
        "bias": step.bias,
        "activation_function": step.activation,
    }
    return config | ({"use_residual": True} if step.residual else {})


def _late_interaction(pipeline: Pipeline) -> Modules:
    if not pipeline.projections or pipeline.steps[-1] != Normalize():
        raise UserError("PyLate cannot express this model: it needs Dense and Normalize at the end")
    return [
        (step.path, "TokenDense", {**_dense(step), "use_residual": step.residual})
        for step in pipeline.projections
    ]


def _pylate_settings(
    late: LateInteraction, tokenizer: Tokenizer | None, length: int
) -> dict[str, Any]:
    for prefix in (late.query_prefix, late.document_prefix):
        if not prefix or tokenizer is None or tokenizer.backend.token_to_id(prefix) is None:
            raise UserError(
                f"PyLate cannot express this model: its prefix {prefix!r} is not a token"
            )
    assert tokenizer is not None  # both prefixes are its tokens
    return {
        "model_type": "ColBERT",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": late.query_prefix,
        "document_prefix": late.document_prefix,
        "query_length": late.query_length or length,
        "document_length": late.document_length or length,
        "attend_to_expansion_tokens": late.attend,
        # PyLate treats an empty list like a missing one and then skips punctuation.
        "skiplist_words": list(late.skiplist) or [tokenizer.token(tokenizer.pad_id)],
        "do_query_expansion": late.expand,
    }


def _json(value: Any, indent: int = 2) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode()
