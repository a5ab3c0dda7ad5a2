"""Format `sentence-transformers`: Hugging Face directories with modules after the model."""

from .directory import read, write
from .layouts import fits_pylate, with_pipeline

__all__ = ["fits_pylate", "read", "with_pipeline", "write"]
