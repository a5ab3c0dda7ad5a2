"""The files of a sentence-transformers directory about its modules, written from a `Pipeline`.

Embedding and sparse models get the older layout, which every version reads. Late-interaction models
get PyLate's, which version 6 reads, too, or version 6's where PyLate cannot express them. A
reranker with a classification head needs no modules: its activation is a key of `config.json`. One
with modules gets the later layout, the first that has rerankers with modules.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_json
from modernbert_jax.pipeline import (
    Dense,
    Layer,
    Normalize,
    Pipeline,
    Pooling,
    SpladePooling,
    Step,
)

from .. import module_files, module_keys, module_late
from ..checkpoint import Checkpoint
from ..huggingface import with_length
from ..module_files import CONFIG, MODULES, POOLING_KEYS, SETTINGS, TRANSFORMER, json_of
from . import late_layouts
from .late_layouts import Modules

VERSIONS = {"sentence_transformers": "3.4.1", "transformers": "4.48.0", "pytorch": "2.5.1"}
"""Versions that the older layout declares: the first that know ModernBERT."""

SPARSE_VERSIONS = {**VERSIONS, "sentence_transformers": "5.0.0"}
"""Versions that sparse models declare: the first that have them."""

LATER_VERSIONS = {**VERSIONS, "sentence_transformers": "5.4.0"}
"""Versions that the later layout declares: the first in which rerankers have modules."""

LATE_VERSIONS = {**VERSIONS, "sentence_transformers": "6.0.0"}
"""Versions that the later layout declares for late interaction, which came with it."""

_OLD_TYPES = {
    **{
        name: f"sentence_transformers.models.{name}"
        for name in ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")
    },
    "TokenDense": "pylate.models.Dense.Dense",
}

_SPARSE_TYPES = {
    "Transformer": "sentence_transformers.sparse_encoder.models.MLMTransformer",
    "SpladePooling": "sentence_transformers.sparse_encoder.models.SpladePooling",
}

_LATER_TYPES = {
    **{
        name: f"sentence_transformers.base.modules.{name.lower()}.{name}"
        for name in ("Transformer", "Dense", "Normalize")
    },
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    **{
        name: f"sentence_transformers.multi_vector_encoder.modules.{file}.{name}"
        for name, file in (
            ("MultiVectorMask", "multi_vector_mask"),
            ("HierarchicalTokenPooling", "token_pooling"),
        )
    },
}

_LATER_KEYS = {"transformer_task", "embedding_dimension", "module_input_name"}
"""Keys that only the later layout has."""

_LATER_ENCODER = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""What the later layout says of a Transformer without a head."""

_LATER_CLASSIFIER = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
"""What the later layout says of a Transformer with a classification head."""

_ACTIVATION_KEYS = ("sentence_transformers", "sbert_ce_default_activation_function")
"""Keys of `config.json` that hold the activation of a reranker without modules."""


def with_pipeline(checkpoint: Checkpoint, pipeline: Pipeline) -> Checkpoint:
    """The checkpoint with files that describe a pipeline, in place of those that it has.

    `Checkpoint.pipeline` of the result equals `pipeline`, with the usual folders, length and
    similarity where it leaves them open. The caller gives the parameters of its layers.

    Args:
        checkpoint: with the parameters of `Embedder`, or with a classification or masked-LM head.
        pipeline: of an embedding model, of a reranker with modules after an encoder or without
            modules after a classification head, of a sparse model with a masked-LM head, or of a
            late-interaction model.

    Raises:
        UserError: modules that do not fit each other or the model, or that the layout of the files
            cannot express.
    """
    pipeline.check_widths(checkpoint.config.hidden_size)
    bare, settings = _bare(checkpoint)
    if pipeline.kind == "reranker":
        _check_reranker(checkpoint, pipeline)
        if not pipeline.steps and not pipeline.prompts and not pipeline.lower_case:
            return _plain_reranker(bare, pipeline)
        return _reranker(bare, pipeline, settings)
    if pipeline.late is not None:
        try:
            return _pylate(bare, settings, pipeline)
        except UserError:
            return _multi_vector(bare, settings, pipeline)
    return _pooled(bare, pipeline, settings)


def _bare(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, Any]]:
    """The checkpoint without files about modules, and its settings that are not read."""
    own = {*module_files.files_of(checkpoint.files)}
    files = {name: content for name, content in checkpoint.files.items() if name not in own}
    extra = {key: x for key, x in checkpoint.extra.items() if key not in _ACTIVATION_KEYS}
    read = {*module_keys.READ["settings"], "__version__"}
    settings = json_of(checkpoint.files, SETTINGS) if own else {}
    settings = {key: x for key, x in settings.items() if key not in read}
    return dataclasses.replace(checkpoint, files=files, extra=extra), settings


def _longest(checkpoint: Checkpoint, pipeline: Pipeline) -> int:
    """The longest input in tokens."""
    longest = checkpoint.config.max_position_embeddings
    return min(pipeline.max_length or longest, longest)


def _pooled(checkpoint: Checkpoint, pipeline: Pipeline, settings: dict[str, Any]) -> Checkpoint:
    """An embedding or sparse model."""
    types, versions = _OLD_TYPES, VERSIONS
    modules = _modules(pipeline, checkpoint.config.hidden_size, _old_pooling, lambda step: {})
    settings = settings | {
        "similarity_fn_name": pipeline.similarity or ("dot" if pipeline.splade else "cosine"),
        "prompts": dict(pipeline.prompts),
        "default_prompt_name": pipeline.default_prompt,
    }
    if pipeline.kind == "sparse":
        _check_sparse(checkpoint, pipeline)
        types, versions = _SPARSE_TYPES, SPARSE_VERSIONS
        settings |= {"model_type": "SparseEncoder"}
        most = pipeline.max_active_dims
        settings |= {"max_active_dims": most} if most else {}
    settings |= {"truncate_dim": pipeline.truncate_dim} if pipeline.truncate_dim else {}
    transformer = {
        "max_seq_length": _longest(checkpoint, pipeline),
        "do_lower_case": pipeline.lower_case,
    }
    return _described(checkpoint, types, modules, settings | {"__version__": versions}, transformer)


def in_widest_layout(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with files that as many versions as possible read.

    A plain model gets mean pooling. Files that are in that layout are kept as they are.

    Raises:
        UserError: the layout cannot express the modules.
    """
    pipeline = checkpoint.pipeline
    if pipeline is None and checkpoint.head == "sequence_classification":
        return checkpoint  # a reranker needs no modules
    if pipeline is None:
        pooling = Pooling(modes=("mean",))
        return with_pipeline(checkpoint, Pipeline(kind="embedding", steps=(pooling,)))
    if MODULES not in checkpoint.files or _is_old(checkpoint.files):
        return checkpoint
    if pipeline.kind == "reranker" and pipeline.steps:
        return checkpoint
    return with_pipeline(checkpoint, pipeline)


def in_pylate_layout(checkpoint: Checkpoint, pipeline: Pipeline) -> Checkpoint:
    """A late-interaction model with PyLate's files. Raises `UserError` if it has others."""
    if _is_old(checkpoint.files):
        return checkpoint
    return _pylate(*_bare(checkpoint), pipeline)


def fits_pylate(checkpoint: Checkpoint) -> bool:
    """Whether PyLate can express the modules of a checkpoint."""
    pipeline = checkpoint.pipeline
    if pipeline is None or pipeline.late is None:
        return False
    try:
        in_pylate_layout(checkpoint, pipeline)
    except UserError:
        return False
    return True


def in_multi_vector_layout(checkpoint: Checkpoint, pipeline: Pipeline) -> Checkpoint:
    """A late-interaction model with files of sentence-transformers 6.

    Raises:
        UserError: something that it cannot express.
    """
    if module_late.is_later(json_of(checkpoint.files, SETTINGS)):
        return checkpoint
    return _multi_vector(*_bare(checkpoint), pipeline)


def _is_old(files: Mapping[str, bytes]) -> bool:
    types = [entry["type"] for entry in parse_json(files[MODULES], MODULES)]
    configs = [json_of(files, name) for name in module_files.files_of(files)[2:]]
    old = {*_OLD_TYPES.values(), *_SPARSE_TYPES.values()}
    return {*types} <= old and not any(_LATER_KEYS & {*c} for c in configs)


def _check_sparse(checkpoint: Checkpoint, pipeline: Pipeline) -> None:
    if checkpoint.head != "masked_lm":
        raise UserError(f"a sparse model has a masked-LM head; this one is {checkpoint.head!r}")
    if len(pipeline.steps) != 1 or pipeline.splade is None:
        raise UserError("the only module of a sparse model is SpladePooling")


def _check_reranker(checkpoint: Checkpoint, pipeline: Pipeline) -> None:
    classifier = checkpoint.head == "sequence_classification"
    if pipeline.steps and checkpoint.head != "none":
        raise UserError(f"a reranker with modules has no head; this one is {checkpoint.head!r}")
    if not pipeline.steps and not classifier:
        raise UserError(f"a reranker needs modules or a classifier; its head is {checkpoint.head}")
    if pipeline.steps and not (
        isinstance(pipeline.steps[0], Pooling) and isinstance(pipeline.steps[-1], Dense)
    ):
        raise UserError("modules of a reranker must begin with Pooling and end with Dense")


def _plain_reranker(checkpoint: Checkpoint, pipeline: Pipeline) -> Checkpoint:
    """A reranker with a classification head, which every version of the library reads."""
    own: dict[str, Any] = {"version": "4.1.0"}
    own |= {"activation_fn": pipeline.activation} if pipeline.activation else {}
    extra = {**checkpoint.extra, "sentence_transformers": own}
    checkpoint = dataclasses.replace(checkpoint, extra=extra)
    return with_length(checkpoint, pipeline.max_length)


def _reranker(checkpoint: Checkpoint, pipeline: Pipeline, settings: dict[str, Any]) -> Checkpoint:
    """A reranker with modules, or with prompts."""
    number_of_last = len(pipeline.steps)

    def names(number: int) -> dict[str, str]:
        output = "scores" if number == number_of_last else "sentence_embedding"
        return {"module_input_name": "sentence_embedding", "module_output_name": output}

    settings = settings | {
        "__version__": LATER_VERSIONS,
        "model_type": "CrossEncoder",
        "prompts": dict(pipeline.prompts),
        "default_prompt_name": pipeline.default_prompt,
    }
    settings |= {"activation_fn": pipeline.activation} if pipeline.activation else {}
    transformer: dict[str, Any] = {**(_LATER_ENCODER if pipeline.steps else _LATER_CLASSIFIER)}
    transformer |= {"do_lower_case": True} if pipeline.lower_case else {}
    modules = _modules(pipeline, checkpoint.config.hidden_size, _later_pooling, names)
    checkpoint = with_length(checkpoint, pipeline.max_length)
    return _described(checkpoint, _LATER_TYPES, modules, settings, transformer)


def _described(
    checkpoint: Checkpoint,
    types: Mapping[str, str],
    modules: Modules,
    settings: Mapping[str, Any],
    transformer: Mapping[str, Any],
) -> Checkpoint:
    """The checkpoint with the files about these modules."""
    files = dict(checkpoint.files)
    listed: list[dict[str, Any]]
    listed = [{"idx": 0, "name": "0", "path": "", "type": types["Transformer"]}]
    for kind, path, config in modules:
        number = len(listed)
        listed.append({"idx": number, "name": str(number), "path": path, "type": types[kind]})
        if config is not None:
            files[f"{path}/{CONFIG}"] = _json(config, 4)
    files[MODULES] = _json(listed)
    files[SETTINGS] = _json(settings)
    files[TRANSFORMER] = _json(transformer, 4)
    return dataclasses.replace(checkpoint, files=files)


def _modules(
    pipeline: Pipeline,
    width: int,
    pooling: Callable[[Pooling, int], dict[str, Any]],
    names: Callable[[int], dict[str, str]],
) -> Modules:
    """The modules of a pipeline.

    Args:
        pipeline: whose steps are described.
        width: of the encoder.
        pooling: configuration of a pooling step of tokens of that width.
        names: keys for what step `number`, from 1, takes and gives.
    """
    modules: Modules = []
    for number, step in enumerate(pipeline.steps, start=1):
        kind = type(step).__name__
        path = _folder(step, number)
        if isinstance(step, Pooling):
            modules.append((kind, path, pooling(step, width)))
        elif isinstance(step, Dense):
            modules.append((kind, path, _dense(step) | names(number)))
        elif isinstance(step, Normalize):
            modules.append((kind, path, names(number) or None))
        elif isinstance(step, SpladePooling):
            modules.append((kind, path, _splade(step)))
        else:
            modules.append((kind, path, {"dimension": step.dimension}))
    return modules


def _folder(step: Step, number: int) -> str:
    """Folder of a step: its own, or the one that sentence-transformers gives it."""
    own = step.path if isinstance(step, Layer) else ""
    return own or f"{number}_{type(step).__name__}"


def _old_pooling(step: Pooling, width: int) -> dict[str, Any]:
    order = [mode for mode in POOLING_KEYS.values() if mode in step.modes]
    if order != list(step.modes):
        raise UserError(
            f"poolings {', '.join(step.modes)} cannot be written: sentence-transformers 5"
            f" concatenates them as {', '.join(order)}"
        )
    switches = {key: mode in order for key, mode in POOLING_KEYS.items()}
    return {
        "word_embedding_dimension": width,
        **switches,
        "include_prompt": step.include_prompt,
    }


def _later_pooling(step: Pooling, width: int) -> dict[str, Any]:
    return {
        "embedding_dimension": width,
        "pooling_mode": step.modes[0] if len(step.modes) == 1 else list(step.modes),
        "include_prompt": step.include_prompt,
    }


def _dense(step: Dense) -> dict[str, Any]:
    config = {
        "in_features": step.in_features,
        "out_features": step.out_features,
        "bias": step.bias,
        "activation_function": step.activation,
    }
    return config | ({"use_residual": True} if step.residual else {})


def _splade(step: SpladePooling) -> dict[str, Any]:
    return {"pooling_strategy": step.strategy, "activation_function": step.activation}


def _pylate(checkpoint: Checkpoint, settings: dict[str, Any], pipeline: Pipeline) -> Checkpoint:
    """A late-interaction model in PyLate's layout."""
    length = _longest(checkpoint, pipeline)
    own = late_layouts.pylate(pipeline, checkpoint.tokenizer, length, _module)
    settings = settings | own.settings | {"__version__": VERSIONS}
    transformer = own.transformer | {"do_lower_case": pipeline.lower_case}
    return _described(checkpoint, _OLD_TYPES, own.modules, settings, transformer)


def _multi_vector(
    checkpoint: Checkpoint, settings: dict[str, Any], pipeline: Pipeline
) -> Checkpoint:
    """A late-interaction model in the layout of sentence-transformers 6."""
    length = _longest(checkpoint, pipeline)
    own = late_layouts.later(pipeline, checkpoint.tokenizer, length, _module)
    settings = settings | own.settings | {"__version__": LATE_VERSIONS}
    transformer = _LATER_ENCODER | own.transformer
    transformer |= {"do_lower_case": True} if pipeline.lower_case else {}
    checkpoint = with_length(checkpoint, pipeline.max_length)
    return _described(checkpoint, _LATER_TYPES, own.modules, settings, transformer)


def _module(step: Step, number: int) -> tuple[str, dict[str, Any]]:
    """Folder and configuration of a step of a late-interaction model."""
    return _folder(step, number), _dense(step) if isinstance(step, Dense) else {}


def _json(value: Any, indent: int = 2) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode()
