"""ModernBERT for JAX: pretrain, convert and run the modern encoder on TPU, GPU and CPU."""

import importlib
import pkgutil
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.errors import UserError

if TYPE_CHECKING:
    from modernbert_jax.pretrained import ModernBert

__all__ = ["ModernBert", "ModernBertConfig", "Runtime", "UserError", "__version__"]


def _checkout() -> Path | None:
    """Root of the checkout from which this package is imported; None where it is installed."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "train").is_dir() else None


_root = _checkout()
if _root is not None:
    # In a checkout convert/, train/ and configs/ are beside this package, not inside it.
    __path__ = [*__path__, str(_root)]
try:
    __version__ = version("modernbert-jax")
except PackageNotFoundError:
    if _root is None:
        raise
    __version__ = tomllib.loads((_root / "pyproject.toml").read_text())["project"]["version"]


def _submodules() -> set[str]:
    """Names of the modules and packages directly below this one."""
    return {module.name for module in pkgutil.iter_modules(__path__)} - {__name__}


def __getattr__(name: str):
    """Import `ModernBert` or a submodule on first access."""
    if name == "ModernBert":
        from modernbert_jax.pretrained import ModernBert

        return ModernBert
    if not name.startswith("_") and name in _submodules():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_submodules()})
