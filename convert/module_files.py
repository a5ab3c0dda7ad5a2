"""The small files of a sentence-transformers or PyLate directory: which exist, and their JSON.

`modules.json` lists the modules, each in a folder with a `config.json`. There are two layouts: the
one up to sentence-transformers 5.3, which every version reads, and the later one.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_json, parse_object, read_bytes
from modernbert_jax.io.text import check_name

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
"""Switches of the older layout, in the order in which their results are concatenated."""

_FIRST = ("Transformer", "MLMTransformer")
"""Classes of the first module; the latter is that of sparse models in the older layout."""

_CLASSES = (
    *_FIRST,
    *("Pooling", "Dense", "LayerNorm", "Normalize", "MultiVectorMask", "SpladePooling"),
    "HierarchicalTokenPooling",
)
_PACKAGES = ("sentence_transformers", "pylate")


def files_in(directory: Path) -> list[str]:
    """Paths of a directory's files about modules; not all of them need to exist."""
    if not (directory / MODULES).is_file():
        return []
    return files_of({MODULES: read_bytes(directory / MODULES)})


def files_of(files: Mapping[str, bytes]) -> list[str]:
    """Paths of the files about modules that belong to the `modules.json` among these files."""
    if MODULES not in files:
        return []
    folders = [path + CONFIG for _, path in listing(files) if path]
    return [MODULES, SETTINGS, TRANSFORMER, *folders]


def listing(files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """The class and the folder, "" or ending in a slash, of every module in order.

    Raises:
        UserError: an unsupported module, or a folder outside the directory.
    """
    content = parse_json(files[MODULES], MODULES)
    modules: list[tuple[str, str]] = []
    for entry in content if isinstance(content, list) else [None]:
        kind, path = (entry.get(k) if isinstance(entry, dict) else None for k in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(path, str):
            raise UserError(f"{MODULES}: must be a list of objects with type and path")
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path:
            raise UserError(f"{MODULES}: path {path!r} is not inside the directory")
        for part in parts:
            check_name(part, f"{MODULES}: path")
        name = kind.rpartition(".")[2]
        if kind.split(".")[0] not in _PACKAGES or name not in _CLASSES:
            known = ", ".join(_CLASSES)
            raise UserError(f"{MODULES}: module {kind!r} is not supported; {known} are")
        folder = "/".join(parts) + "/" if parts else ""
        if folder and any(folder == other for _, other in modules):
            raise UserError(
                f"{MODULES}: names the folder {path!r} twice; give each module a folder of its own"
            )
        modules.append((name, folder))
    if not modules or modules[0][0] not in _FIRST:
        raise UserError(f"{MODULES}: the first module must be a Transformer")
    return modules


def json_of(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    return parse_object(files[name], name) if name in files else {}


class Fields:
    """The keys of a JSON object, checked for their types; `file` names it in errors."""

    def __init__(self, file: str, values: Mapping[str, Any]):
        self.file, self.values = file, values

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of a key, or the default if it is missing or null."""
        value = self.values.get(key)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            known = " or ".join(x.__name__ for x in kinds)
            raise UserError(f"{self.file}: {key} is {value!r}; it must be {known}")
        return value

    def size(self, key: str) -> int:
        """A value that must be 1 or more."""
        value = self.get(key, int, 0)
        if value < 1:
            raise UserError(f"{self.file}: {key} is {self.values.get(key)!r}; it must be 1 or more")
        return value
