"""Format `sentence-transformers`: Hugging Face directories with modules after the model."""

from .directory import read, write
from .layouts import with_pipeline

__all__ = ["read", "with_pipeline", "write"]
