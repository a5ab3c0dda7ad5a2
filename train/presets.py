"""Where a run's configuration comes from: a preset, a Python file, or another run."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from modernbert_jax import configs
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.files import read_json
from modernbert_jax.io.typed_json import from_json

from .pretrain.config import PretrainConfig


def names(package: ModuleType = configs) -> list[str]:
    """The presets that come with the package, those of pretraining or of another folder."""
    modules = (module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def load(
    source: str,
    kind: type = PretrainConfig,
    package: ModuleType = configs,
    read: Callable[[Any, str], Any] | None = None,
) -> Any:
    """The configuration named by a preset, a `.py` file with `config()`, or a `config.json`.

    Args:
        source: its name or path.
        kind: what it must be.
        package: where presets lie.
        read: makes it of JSON and the name of its place.

    Raises:
        UserError: there is no such preset or file, or it does not hold a configuration.
    """
    path = Path(source)
    if path.suffix == ".json":
        value = read_json(path)
        return read(value, source) if read else from_json(kind, value, source)
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"{source}: no such file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    elif source in (known := names(package)):
        module = importlib.import_module(f"{package.__name__}.{source.replace('-', '_')}")
    else:
        raise UserError(f"no preset is named {source!r}; {did_you_mean(source, known)}")
    config = getattr(module, "config", None)
    made = config() if callable(config) else None
    if not isinstance(made, kind):
        raise UserError(f"{source}: has no function config() that returns a {kind.__name__}")
    return made


def first(
    command: str,
    args: Sequence[str],
    load: Callable[[str], Any] = load,
    names: Callable[[], list[str]] = names,
    otherwise: str = "nano",
) -> tuple[Any, Any, Sequence[str]]:
    """The configuration that a command is given first, its type for tyro, and what follows.

    A call for help may leave it out; then it is `otherwise`. Raises `UserError`.
    """
    named = bool(args) and not args[0].startswith("-")
    if not named and not {"-h", "--help"} & set(args):
        raise UserError(f"{command} needs a CONFIG first: {', '.join(names())}")
    config = load(args[0] if named else otherwise)
    kind = Annotated[type(config), tyro.conf.AvoidSubcommands, tyro.conf.arg(name="")]
    return config, kind, args[named:]
