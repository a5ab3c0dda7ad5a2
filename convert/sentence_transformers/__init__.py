"""Format `sentence-transformers`: Hugging Face directories with modules after the model."""

from .directory import read, write

__all__ = ["read", "write"]
