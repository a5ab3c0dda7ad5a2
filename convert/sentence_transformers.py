"""Directories of sentence-transformers: Hugging Face ones with modules behind the model.

Both layouts are read and the older one is written, because every version loads it; that of
late-interaction models is PyLate's. What came in the older layout goes out byte for byte.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import Dense, Normalize, Pipeline, Pooling

from . import huggingface, modules
from .checkpoint import Checkpoint

VERSIONS = {"sentence_transformers": "3.4.1", "transformers": "4.48.0", "pytorch": "2.5.1"}
"""What a new directory says it was made with: the first that know ModernBERT."""

_TYPES = {
    **{n: f"sentence_transformers.models.{n}" for n in ("Transformer", "Pooling", "Normalize")},
    "Dense": "sentence_transformers.models.Dense",
    "TokenDense": "pylate.models.Dense.Dense",
}
_NEW_KEYS = {"transformer_task", "embedding_dimension", "module_input_name"}
"""Keys that only the later layout has."""


def read(directory: Path) -> Checkpoint:
    """The checkpoint in a directory. Raises `UserError` that lists what is wrong."""
    found = huggingface.read_carried(directory)
    path = modules.listing(found)[0][1]
    if path:
        raise UserError(
            f"{directory / modules.MODULES}: the Transformer lies in {path!r}; move its files to"
            " the directory itself and make its path empty"
        )
    pipeline = modules.read(found, {})
    return huggingface.read(directory, pipeline.projections, bare=pipeline.kind != "reranker")


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fills an existing, empty directory. Raises `UserError` for a late-interaction model."""
    if checkpoint.pipeline and checkpoint.pipeline.late:
        raise UserError("this is a late-interaction model; use format 'pylate'")
    fill(checkpoint, directory)


def fill(checkpoint: Checkpoint, directory: Path) -> None:
    """Fills an existing, empty directory with a model of any kind."""
    checkpoint = in_old_layout(checkpoint)
    huggingface.write(checkpoint, directory)
    for name in modules.files_of(checkpoint.files)[3:]:
        path = Path(name).parent
        (directory / path).mkdir(exist_ok=True, parents=True)


def in_old_layout(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with files that old and new versions read; a plain model gets mean pooling.

    Raises `UserError` where the older layout cannot say what the files of the newer one say.
    """
    pipeline = checkpoint.pipeline
    if pipeline is None and checkpoint.head == "sequence_classification":
        return checkpoint  # a reranker needs no modules
    if pipeline is None:
        pipeline = Pipeline(kind="embedding", steps=(Pooling(modes=("mean",)),))
    elif modules.MODULES not in checkpoint.files or _is_old(checkpoint.files):
        return checkpoint
    other = {*modules.files_of(checkpoint.files)}
    files = {name: content for name, content in checkpoint.files.items() if name not in other}
    if pipeline.kind == "reranker":
        own = {"version": "4.1.0"}
        own |= {"activation_fn": pipeline.activation} if pipeline.activation else {}
        extra = {**checkpoint.extra, "sentence_transformers": own}
        return dataclasses.replace(checkpoint, files=files, extra=extra)
    settings = modules.json_of(checkpoint.files, modules.SETTINGS)
    settings = {"__version__": VERSIONS, **settings}
    length = pipeline.max_length or checkpoint.config.max_position_embeddings
    length = min(length, checkpoint.config.max_position_embeddings)
    if pipeline.kind == "embedding":
        described = _embedding(pipeline, checkpoint.config.hidden_size)
        settings |= {"similarity_fn_name": pipeline.similarity or "cosine"}
        settings |= {
            "prompts": dict(pipeline.prompts),
            "default_prompt_name": pipeline.default_prompt,
        }
    else:
        described = _late_interaction(pipeline, checkpoint)
        settings |= _pylate(pipeline, checkpoint, length)
    listed = [{"idx": 0, "name": "0", "path": "", "type": _TYPES["Transformer"]}]
    for path, kind, config in described:
        number = len(listed)
        listed.append({"idx": number, "name": str(number), "path": path, "type": _TYPES[kind]})
        if config is not None:
            files[f"{path}/{modules.CONFIG}"] = _bytes(config, 4)
    files[modules.MODULES] = _bytes(listed)
    files[modules.SETTINGS] = _bytes(settings)
    lower = {"do_lower_case": pipeline.lower_case}
    files[modules.TRANSFORMER] = _bytes({"max_seq_length": length, **lower}, 4)
    return dataclasses.replace(checkpoint, files=files)


def _is_old(files: Mapping[str, bytes]) -> bool:
    types = [entry["type"] for entry in json.loads(files[modules.MODULES])]
    configs = [modules.json_of(files, name) for name in modules.files_of(files)[2:]]
    return {*types} <= {*_TYPES.values()} and not any(_NEW_KEYS & {*c} for c in configs)


def _embedding(pipeline: Pipeline, width: int) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Folder, kind and configuration of each module."""
    found = []
    for number, step in enumerate(pipeline.steps, start=1):
        if isinstance(step, Pooling):
            order = [mode for mode in modules.POOLING_KEYS.values() if mode in step.modes]
            if order != list(step.modes):
                raise UserError(
                    f"poolings {', '.join(step.modes)} cannot be written: sentence-transformers 5"
                    f" joins them as {', '.join(order)}"
                )
            config = {"word_embedding_dimension": width}
            config |= {key: mode in order for key, mode in modules.POOLING_KEYS.items()}
            config |= {"include_prompt": step.include_prompt}
            found.append((f"{number}_Pooling", "Pooling", config))
        elif isinstance(step, Dense):
            found.append((step.path, "Dense", _dense(step)))
        else:
            found.append((f"{number}_Normalize", "Normalize", None))
    return found


def _dense(step: Dense) -> dict[str, Any]:
    config = {
        "in_features": step.in_features,
        "out_features": step.out_features,
        "bias": step.bias,
        "activation_function": step.activation,
    }
    return config | ({"use_residual": True} if step.residual else {})


def _late_interaction(pipeline: Pipeline, checkpoint: Checkpoint):
    if not pipeline.projections or pipeline.steps[-1] != Normalize():
        raise UserError("PyLate cannot express this model: it needs Dense and Normalize at the end")
    for prefix in (pipeline.late.query_prefix, pipeline.late.document_prefix):
        known = checkpoint.tokenizer and checkpoint.tokenizer.backend.token_to_id(prefix)
        if not prefix or known is None:
            raise UserError(
                f"PyLate cannot express this model: its prefix {prefix!r} is not a token"
            )
    return [
        (step.path, "TokenDense", {**_dense(step), "use_residual": step.residual})
        for step in pipeline.projections
    ]


def _pylate(pipeline: Pipeline, checkpoint: Checkpoint, length: int) -> dict[str, Any]:
    late = pipeline.late
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
        # PyLate takes an empty list for no list, and then leaves punctuation out.
        "skiplist_words": list(late.skiplist)
        or [checkpoint.tokenizer.token(checkpoint.tokenizer.pad_id)],
        "do_query_expansion": late.expand,
    }


def _bytes(value: Any, indent: int = 2) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode()
