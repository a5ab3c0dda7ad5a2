"""ModernBERT for JAX: pretrain, convert and run the modern encoder on TPU, GPU and CPU."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.errors import UserError

if TYPE_CHECKING:
    from modernbert_jax.pretrained import ModernBert

__all__ = ["ModernBert", "ModernBertConfig", "Runtime", "UserError", "__version__"]
__version__ = version("modernbert-jax")


def __getattr__(name: str):
    """Imports `ModernBert`, and with it the converters, only when it is asked for."""
    if name == "ModernBert":
        from modernbert_jax.pretrained import ModernBert

        return ModernBert
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
