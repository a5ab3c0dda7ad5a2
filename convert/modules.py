"""The small files of sentence-transformers and PyLate directories that say what follows the model.

`modules.json` lists the modules, each in a folder with a `config.json`. There are two layouts, the
one up to sentence-transformers 5.3, which every version reads, and the later one.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import POOLINGS
from modernbert_jax.pipeline import (
    ACTIVATIONS,
    Dense,
    Kind,
    LateInteraction,
    Normalize,
    Pipeline,
    Pooling,
)

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
CONFIG = "config.json"

POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The older layout's switches, in the order in which the results are joined."""

_SIMILARITY = {"embedding": "cosine", "late-interaction": "MaxSim", "reranker": None}
KINDS: dict[str, Kind] = {
    "SentenceTransformer": "embedding",
    "CrossEncoder": "reranker",
    "ColBERT": "late-interaction",
    "MultiVectorEncoder": "late-interaction",
}


def read(files: Mapping[str, bytes], extra: Mapping[str, Any]) -> Pipeline | None:
    """The pipeline that files describe, by their paths in the directory; None if they do not.

    Args:
        files: those that a checkpoint carries.
        extra: keys of its `config.json`; in the older layout a reranker's are all there is.

    Raises:
        UserError: a module that is not known, or a key that is missing or of the wrong type.
    """
    if MODULES not in files:
        return _plain_reranker(files, extra)
    listed, settings = listing(files), json_of(files, SETTINGS)
    transformer = json_of(files, listed[0][1] + TRANSFORMER)
    kind = _kind(settings, [name for name, _ in listed])
    steps: list[Pooling | Dense | Normalize] = []
    for name, path in listed[1:]:
        given = _Fields(path + CONFIG, json_of(files, path + CONFIG))
        if name == "Pooling":
            steps.append(_pooling(given))
        elif name == "Dense":
            number = sum(isinstance(step, Dense) for step in steps)
            steps.append(_dense(given, f"dense_{number}", path.rstrip("/")))
        elif name == "Normalize":
            steps.append(Normalize())
        elif kind != "late-interaction" or name != "MultiVectorMask":
            raise UserError(f"{MODULES}: a {name} in a model for {kind} is not supported")
    if kind == "embedding" and not (steps and isinstance(steps[0], Pooling)):
        raise UserError(f"{MODULES}: the module after the Transformer must be Pooling")
    given = _Fields(SETTINGS, settings)
    if kind == "late-interaction" and settings.get("model_type") != "MultiVectorEncoder":
        steps.append(Normalize())  # PyLate's own, and no module
    prompts = given.get("prompts", dict, {})
    if kind == "late-interaction":
        # The newer layout has the prefixes here, the older one empty prompts.
        old = settings.get("model_type") != "MultiVectorEncoder"
        prompts = {name: text for name, text in prompts.items() if text and old}
    return Pipeline(
        kind=kind,
        steps=tuple(steps),
        prompts={str(k): v for k, v in prompts.items() if isinstance(v, str)},
        default_prompt=given.get("default_prompt_name", str),
        similarity=given.get("similarity_fn_name", str, _SIMILARITY[kind]),
        max_length=_max_length(files, transformer),
        lower_case=bool(transformer.get("do_lower_case", False)),
        late=_late(files, listed, given, transformer) if kind == "late-interaction" else None,
        activation=given.get("activation_fn", str),
    )


def _plain_reranker(files: Mapping[str, bytes], extra: Mapping[str, Any]) -> Pipeline | None:
    own = extra.get("sentence_transformers")
    # Before version 4 the activation was a key of its own.
    activation = extra.get("sbert_ce_default_activation_function")
    if isinstance(own, Mapping):
        activation = own.get("activation_fn", activation)
    elif activation is None:
        return None
    return Pipeline(kind="reranker", activation=activation, max_length=_max_length(files, {}))


def files_in(directory: Path) -> list[str]:
    """The paths of a directory's small files about modules, which need not all be there."""
    if not (directory / MODULES).is_file():
        return []
    return files_of({MODULES: (directory / MODULES).read_bytes()})


def files_of(files: Mapping[str, bytes]) -> list[str]:
    """The same for files at hand."""
    if MODULES not in files:
        return []
    folders = [path + CONFIG for _, path in listing(files) if path]
    return [MODULES, SETTINGS, TRANSFORMER, *folders]


def listing(files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """The class and the folder, "" or ending in a slash, of every module in order."""
    content = _parsed(files, MODULES)
    found = []
    for entry in content if isinstance(content, list) else [None]:
        kind, path = (entry.get(k) if isinstance(entry, dict) else None for k in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(path, str):
            raise UserError(f"{MODULES}: must be a list of objects with type and path")
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path:
            raise UserError(f"{MODULES}: path {path!r} is not inside the directory")
        name = kind.rpartition(".")[2]
        known = ("Transformer", "Pooling", "Dense", "Normalize", "MultiVectorMask")
        if kind.split(".")[0] not in ("sentence_transformers", "pylate") or name not in known:
            raise UserError(f"{MODULES}: module {kind!r} is not supported; {', '.join(known)} are")
        found.append((name, "/".join(parts) + "/" if parts else ""))
    if not found or found[0][0] != "Transformer":
        raise UserError(f"{MODULES}: the first module must be a Transformer")
    return found


def _kind(settings: Mapping[str, Any], names: list[str]) -> Kind:
    named = settings.get("model_type")
    if named in KINDS:
        return KINDS[named]
    if named is not None:
        raise UserError(f"{SETTINGS}: model_type is {named!r}; {did_you_mean(str(named), KINDS)}")
    return "embedding" if "Pooling" in names or len(names) == 1 else "late-interaction"


class _Fields:
    """A file's keys, with their types."""

    def __init__(self, file: str, values: Mapping[str, Any]):
        self.file, self.values = file, values

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(f"{self.file}: {key} is {value!r}; it must be {kind.__name__}")
        return value

    def size(self, key: str) -> int:
        value = self.get(key, int, 0)
        if value < 1:
            raise UserError(f"{self.file}: {key} is {self.values.get(key)!r}; it must be 1 or more")
        return value


def _pooling(given: _Fields) -> Pooling:
    named = given.values.get("pooling_mode")
    if named is None:
        modes = [mode for key, mode in POOLING_KEYS.items() if given.get(key, bool)] or ["mean"]
    else:
        modes = [named] if isinstance(named, str) else named
    for mode in modes if isinstance(modes, list) else [modes]:
        if mode not in POOLINGS:
            raise UserError(
                f"{given.file}: pooling is {mode!r}; {did_you_mean(str(mode), POOLINGS)}"
            )
    return Pooling(modes=tuple(modes), include_prompt=given.get("include_prompt", bool, True))


def _dense(given: _Fields, name: str, path: str) -> Dense:
    activation = given.get("activation_function", str, Dense.activation)
    if activation not in ACTIVATIONS:
        wanted = did_you_mean(activation, ACTIVATIONS)
        raise UserError(f"{given.file}: activation_function is {activation!r}; {wanted}")
    return Dense(
        name=name,
        path=path,
        in_features=given.size("in_features"),
        out_features=given.size("out_features"),
        bias=given.get("bias", bool, True),
        activation=activation,
        residual=given.get("use_residual", bool, False),
    )


def _max_length(files: Mapping[str, bytes], transformer: Mapping[str, Any]) -> int | None:
    """The older layout has it beside the transformer, the newer with the tokenizer."""
    for found in (
        transformer.get("max_seq_length"),
        json_of(files, "tokenizer_config.json").get("model_max_length"),
    ):
        if isinstance(found, int) and not isinstance(found, bool) and found > 1:
            return found
    return None


def _late(
    files: Mapping[str, bytes],
    listed: list[tuple[str, str]],
    given: _Fields,
    transformer: Mapping[str, Any],
) -> LateInteraction:
    if given.values.get("model_type") == "MultiVectorEncoder":
        masks = [path for name, path in listed if name == "MultiVectorMask"]
        mask = json_of(files, masks[0] + "config.json") if masks else {}
        tasks = mask.get("skiplist_tasks", ["document"])
        if mask.get("keep_only_token_ids") or tasks != ["document"]:
            raise UserError(f"{masks[0]}config.json: only a skiplist of documents is supported")
        own = _Fields(TRANSFORMER, transformer)
        expansion = own.get("query_expansion", dict, {})
        if expansion.get("strategy", "fixed") != "fixed" or expansion.get("token") is not None:
            raise UserError(f"{TRANSFORMER}: query_expansion {expansion} is not supported")
        prompts = given.get("prompts", dict, {})
        return LateInteraction(
            query_prefix=prompts.get("query") or "",
            document_prefix=prompts.get("document") or "",
            query_length=expansion.get("length") or own.get("query_length", int),
            document_length=own.get("document_length", int),
            expand=bool(expansion),
            attend=bool(expansion.get("attend", False)),
            skiplist=tuple(mask.get("skiplist_words") or ()),
        )
    # Where a file leaves something out, PyLate has these.
    expand = given.get("do_query_expansion", bool, True)
    return LateInteraction(
        query_prefix=given.get("query_prefix", str) or "[Q] ",
        document_prefix=given.get("document_prefix", str) or "[D] ",
        query_length=given.get("query_length", int) or 32,
        document_length=given.get("document_length", int) or 180,
        expand=expand,
        attend=expand and given.get("attend_to_expansion_tokens", bool, False),
        skiplist=tuple(given.get("skiplist_words", list) or "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    )


def json_of(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """A file's JSON object; empty where there is no such file."""
    value = _parsed(files, name) if name in files else {}
    if not isinstance(value, dict):
        raise UserError(f"{name}: holds {type(value).__name__}; it must be a JSON object")
    return value


def _parsed(files: Mapping[str, bytes], name: str) -> Any:
    try:
        return json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({error})") from None
