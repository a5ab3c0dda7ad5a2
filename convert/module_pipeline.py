"""Read what follows the model, a `Pipeline`, from the files that `module_files` lists."""

from collections.abc import Mapping
from typing import Any

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import POOLINGS
from modernbert_jax.pipeline import (
    ACTIVATIONS,
    Dense,
    Kind,
    LayerNorm,
    Normalize,
    Pipeline,
    Pooling,
    SpladePooling,
    Step,
)

from . import module_files, module_keys, module_late
from .module_files import CONFIG, MODULES, POOLING_KEYS, SETTINGS, TRANSFORMER, Fields, json_of

KINDS: dict[str, Kind] = {
    "SentenceTransformer": "embedding",
    "CrossEncoder": "reranker",
    "ColBERT": "late-interaction",
    "MultiVectorEncoder": "late-interaction",
    "SparseEncoder": "sparse",
}
"""Kinds of model by `model_type`."""

_SIMILARITY = {
    **{"embedding": "cosine", "late-interaction": "MaxSim", "reranker": None},
    "sparse": "dot",
}


def read(files: Mapping[str, bytes], extra: Mapping[str, Any]) -> Pipeline | None:
    """The pipeline that files describe; None if they describe none.

    Args:
        files: contents by path, as a checkpoint carries them.
        extra: keys of its `config.json`; a reranker in the older layout has only these.

    Raises:
        UserError: an unknown module, or a key that is missing or of the wrong type.
    """
    if MODULES not in files:
        return _plain_reranker(files, extra)
    listed, settings = module_files.listing(files), json_of(files, SETTINGS)
    transformer = json_of(files, listed[0][1] + TRANSFORMER)
    module_keys.check(SETTINGS, "settings", settings)
    module_keys.check(TRANSFORMER, "Transformer", transformer)
    kind = _kind(settings, [name for name, _ in listed])
    steps: list[Step] = []
    for name, path in listed[1:]:
        module = Fields(path + CONFIG, json_of(files, path + CONFIG))
        module_keys.check(module.file, name, module.values)
        if name == "Pooling":
            steps.append(_pooling(module))
        elif name == "Dense":
            number = sum(isinstance(step, Dense) for step in steps)
            steps.append(_dense(module, f"dense_{number}", path.rstrip("/")))
        elif name == "LayerNorm":
            number = sum(isinstance(step, LayerNorm) for step in steps)
            size = module.size("dimension")
            own_name = f"layer_norm_{number}"
            steps.append(LayerNorm(name=own_name, path=path.rstrip("/"), dimension=size))
        elif name == "Normalize":
            steps.append(Normalize())
        elif kind == "sparse" and name == "SpladePooling":
            steps.append(_splade(module))
        elif kind != "late-interaction" or name not in module_late.MODULES_OF_ITS_OWN:
            raise UserError(f"{MODULES}: a {name} in a model for {kind} is not supported")
    pooled = steps != [] and isinstance(steps[0], Pooling)
    if not pooled and (kind == "embedding" or (kind == "reranker" and steps)):
        raise UserError(f"{MODULES}: the module after the Transformer must be Pooling")
    if kind == "reranker" and steps and not isinstance(steps[-1], Dense):
        raise UserError(f"{MODULES}: the last module of a reranker must be Dense")
    if kind == "sparse" and not (len(steps) == 1 and isinstance(steps[0], SpladePooling)):
        raise UserError(f"{MODULES}: a sparse model must be a Transformer and a SpladePooling")
    fields = Fields(SETTINGS, settings)
    prompts, late = fields.get("prompts", dict, {}), None
    default = fields.get("default_prompt_name", str)
    similarity = fields.get("similarity_fn_name", str, _SIMILARITY[kind])
    if kind == "late-interaction":
        if module_late.is_later(settings):
            late = module_late.later(files, listed, fields, transformer)
        else:
            steps.append(Normalize())  # PyLate normalises without listing a module
            late = module_late.of_pylate(fields)
        in_prefixes = module_late.prompts_in_prefixes(settings)
        prompts = {k: v for k, v in prompts.items() if v and k not in in_prefixes}
        similarity = module_late.similarity(similarity)
        default = default if default in prompts else None
    return Pipeline(
        kind=kind,
        steps=tuple(steps),
        prompts={str(k): v for k, v in prompts.items() if isinstance(v, str)},
        default_prompt=default,
        similarity=similarity,
        truncate_dim=fields.size("truncate_dim") if settings.get("truncate_dim") else None,
        max_length=_max_length(files, transformer, module_late.longest_of_pylate(settings, late)),
        lower_case=bool(transformer.get("do_lower_case", False)),
        late=late,
        max_active_dims=fields.size("max_active_dims") if "max_active_dims" in settings else None,
        token_pooling=module_late.token_pooling(files, listed),
        activation=fields.get("activation_fn", str),
    )


def _plain_reranker(files: Mapping[str, bytes], extra: Mapping[str, Any]) -> Pipeline | None:
    own = extra.get("sentence_transformers")
    # Before version 4 the activation was a key of its own.
    activation = extra.get("sbert_ce_default_activation_function")
    if isinstance(own, Mapping):
        activation = own.get("activation_fn", activation)
    elif activation is None:
        return None
    if activation is not None and not isinstance(activation, str):
        raise UserError(f"{CONFIG}: the activation is {activation!r}; it must be a name")
    return Pipeline(kind="reranker", activation=activation, max_length=_max_length(files, {}))


def _kind(settings: Mapping[str, Any], modules: list[str]) -> Kind:
    model_type = settings.get("model_type")
    if isinstance(model_type, str) and model_type in KINDS:
        return KINDS[model_type]
    if model_type is not None:
        remedy = did_you_mean(str(model_type), KINDS)
        raise UserError(f"{SETTINGS}: model_type is {model_type!r}; {remedy}")
    if "SpladePooling" in modules:
        return "sparse"
    return "embedding" if "Pooling" in modules or len(modules) == 1 else "late-interaction"


def _pooling(module: Fields) -> Pooling:
    mode = module.values.get("pooling_mode")
    if mode is None:
        modes = [mode for key, mode in POOLING_KEYS.items() if module.get(key, bool)] or ["mean"]
    else:
        modes = mode if isinstance(mode, list) else [mode]
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLINGS:
            remedy = did_you_mean(str(mode), POOLINGS)
            raise UserError(f"{module.file}: pooling is {mode!r}; {remedy}")
    return Pooling(modes=tuple(modes), include_prompt=module.get("include_prompt", bool, True))


def _splade(module: Fields) -> SpladePooling:
    strategy = module.get("pooling_strategy", str, "max")
    activation = module.get("activation_function", str, "relu")
    if strategy not in ("max", "sum"):
        raise UserError(f"{module.file}: pooling_strategy is {strategy!r}; it must be max or sum")
    if activation not in ("relu", "log1p_relu"):
        raise UserError(
            f"{module.file}: activation_function is {activation!r}; it must be relu or log1p_relu"
        )
    return SpladePooling(strategy=strategy, activation=activation)


def _dense(module: Fields, name: str, path: str) -> Dense:
    activation = module.get("activation_function", str, Dense.activation)
    if activation not in ACTIVATIONS:
        remedy = did_you_mean(activation, ACTIVATIONS)
        raise UserError(f"{module.file}: activation_function is {activation!r}; {remedy}")
    return Dense(
        name=name,
        path=path,
        in_features=module.size("in_features"),
        out_features=module.size("out_features"),
        bias=module.get("bias", bool, True),
        activation=activation,
        residual=module.get("use_residual", bool, False),
    )


def _max_length(
    files: Mapping[str, bytes], transformer: Mapping[str, Any], least: int = 2
) -> int | None:
    """Longest input in tokens: with the transformer in the older layout, else the tokenizer's.

    Lengths below `least` are ignored.
    """
    for length in (
        transformer.get("max_seq_length"),
        json_of(files, "tokenizer_config.json").get("model_max_length"),
    ):
        if isinstance(length, int) and not isinstance(length, bool) and length >= least:
            return length
    return None
