"""Where a run's configuration comes from: a preset, a Python file, or another run."""

import importlib
import importlib.util
import pkgutil
from pathlib import Path

from modernbert_jax import configs
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.files import read_json

from .config import PretrainConfig, from_json


def names() -> list[str]:
    """The presets that come with the package."""
    modules = (module.name for module in pkgutil.iter_modules(configs.__path__))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def load(source: str) -> PretrainConfig:
    """The configuration named by a preset, a `.py` file with `config()`, or a `config.json`.

    Raises:
        UserError: there is no such preset or file, or it does not hold a configuration.
    """
    path = Path(source)
    if path.suffix == ".json":
        return from_json(PretrainConfig, read_json(path), source)
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"{source}: no such file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    elif source in names():
        module = importlib.import_module(f"{configs.__name__}.{source.replace('-', '_')}")
    else:
        raise UserError(f"no preset is named {source!r}; {did_you_mean(source, names())}")
    config = getattr(module, "config", None)
    made = config() if callable(config) else None
    if not isinstance(made, PretrainConfig):
        raise UserError(f"{source}: has no function config() that returns a PretrainConfig")
    return made
