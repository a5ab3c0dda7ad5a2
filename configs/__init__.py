"""Presets, and the one way from a name or a file to a run's configuration.

A module of this package, or of `finetune` below it, holds one preset, the function `config()`, or
several in `PRESETS`. The configurations are frozen dataclasses of `modernbert_jax.train`.
"""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from modernbert_jax.errors import UserError, did_you_mean, first_line
from modernbert_jax.io import typed_json
from modernbert_jax.io.json_reader import read_json

Kind = Literal["pretrain", "finetune"]
"""The commands whose runs are configured."""


class Preset(NamedTuple):
    """A configuration that has a name."""

    summary: str
    """One line for the user."""
    config: Callable[[], Any]


class _Type(NamedTuple):
    """The dataclasses of a kind of run, and their form in JSON."""

    configs: tuple[type, ...]
    from_json: Callable[[Any, str], Any]


def presets(kind: Kind) -> dict[str, Preset]:
    """Presets of a kind of run, by name."""
    name = {"pretrain": __name__, "finetune": f"{__name__}.finetune"}[kind]
    package = importlib.import_module(name)
    table: dict[str, Preset] = dict(getattr(package, "PRESETS", {}))
    for info in pkgutil.iter_modules(package.__path__):
        if info.ispkg or info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{name}.{info.name}")
        if hasattr(module, "PRESETS"):
            table |= module.PRESETS
        else:
            summary = (module.__doc__ or "").strip().splitlines()[0]
            table[info.name.replace("_", "-")] = Preset(summary, module.config)
    return table


def description(kind: Kind, source: str) -> str:
    """What a configuration is: a preset's summary and the docstring of its module, or the path."""
    if (preset := presets(kind).get(source)) is None:
        return f"the file {source}."
    function = preset.config
    while isinstance(function, functools.partial):
        function = function.func
    module = importlib.import_module(function.__module__)
    text = "" if hasattr(module, "__path__") else inspect.getdoc(module) or ""
    return text if text.startswith(preset.summary) else f"{preset.summary}\n\n{text}".strip()


def load(kind: Kind, source: str) -> Any:
    """The configuration named by a preset, a `.py` file with `config()`, or a run's `config.json`.

    Args:
        kind: command that it is for.
        source: name or path.

    Raises:
        UserError: there is no such preset or file, or it does not hold such a configuration.
    """
    path = Path(source).expanduser()
    if path.suffix == ".json":
        return _type(kind).from_json(read_json(path), source)
    if path.suffix == ".py":
        function = getattr(_module(path), "config", None)
    elif preset := (known := presets(kind)).get(source):
        function = preset.config
    else:
        raise UserError(f"no preset is named {source!r}; {did_you_mean(source, known)}")
    config = _of_user(source, function) if callable(function) else None
    expected = _type(kind).configs
    if not isinstance(config, expected):
        names = " or ".join(x.__name__ for x in expected)
        raise UserError(f"{source}: has no function config() that returns a {names}")
    return config


def _type(kind: Kind) -> _Type:
    if kind == "finetune":
        from modernbert_jax.train.finetune import config as finetune
        from modernbert_jax.train.retrieval import config as retrieval

        def from_json(value: Any, where: str) -> Any:
            is_retrieval = isinstance(value, Mapping) and "kind" in value
            return (retrieval if is_retrieval else finetune).from_json(value, where)

        return _Type((finetune.FinetuneConfig, retrieval.RetrievalConfig), from_json)
    from modernbert_jax.train.pretrain.config import PretrainConfig

    return _Type((PretrainConfig,), lambda x, at: typed_json.from_json(PretrainConfig, x, at))


def _module(path: Path) -> Any:
    """The module in a file of the user's. Raises `UserError`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a .py file has both
    loader = spec.loader
    module = importlib.util.module_from_spec(spec)
    _of_user(path, lambda: loader.exec_module(module))
    return module


def _of_user(source: str | Path, call: Callable[[], Any]) -> Any:
    """The result of code that the user wrote. Raises `UserError` for any error in it."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{source}: {kind}: {first_line(error)}; --debug shows where") from error
