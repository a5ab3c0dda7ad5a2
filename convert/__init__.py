"""Checkpoints in every format: read, written, converted, compared, described and averaged.

The table of names (`names`) is the only place that knows foreign tensors and our parameters; each
format has a room or a module. Knows the library, not training.
"""

from .averaging import average
from .checkpoint import DTYPES, Checkpoint, Layout, cast, loaded
from .conversion import convert
from .formats import FORMATS, check_target, detect, load, save
from .identity import identity
from .inspection import inspect, render, show
from .locating import locate, tokenizer_of
from .new_tokens import with_tokens
from .sentence_transformers import with_pipeline
from .verification import Verification, verify

__all__ = [
    "DTYPES",
    "FORMATS",
    "Checkpoint",
    "Layout",
    "Verification",
    "average",
    "cast",
    "check_target",
    "convert",
    "detect",
    "identity",
    "inspect",
    "load",
    "loaded",
    "locate",
    "render",
    "save",
    "show",
    "tokenizer_of",
    "verify",
    "with_pipeline",
    "with_tokens",
]
