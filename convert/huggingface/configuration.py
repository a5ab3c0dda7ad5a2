"""`config.json` of a Hugging Face directory: the architecture, the head, and all other keys."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modernbert_jax import hf_config
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.json_reader import read_json

from .. import names
from ..checkpoint import Checkpoint

_HEAD_PREFIXES = ("head.", "lm_head.", "decoder.", "classifier.")
"""Beginnings of tensor names that occur only in heads."""


def read_config(directory: Path) -> tuple[ModernBertConfig, dict[str, Any], str | None]:
    """Read `config.json`: the architecture, all keys without a meaning for it, and the dtype."""
    path = directory / "config.json"
    raw = read_json(path)
    try:
        config = ModernBertConfig.from_hf(raw)
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('config.json: ')}") from None
    declared = raw.get("dtype", raw.get("torch_dtype"))
    return config, hf_config.unknown_keys(raw), declared if isinstance(declared, str) else None


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of `config.json`, with both keys of the dtype; old version 4 reads the longer."""
    dtype = checkpoint.layout.dtype or checkpoint.dtype
    architecture = names.heads(checkpoint.config)[checkpoint.head]
    keys = {"architectures": [architecture], "dtype": dtype, "torch_dtype": dtype}
    return checkpoint.config.to_hf(**{**checkpoint.extra, **keys})


def has_head(tensors: Iterable[str]) -> bool:
    """True if any of these tensor names belongs to a head."""
    return any(name.startswith(_HEAD_PREFIXES) for name in tensors)


def head_of(config: ModernBertConfig, tensors: Iterable[str], directory: Path) -> str | None:
    """The head that `config.json` names, or else the only one that the tensors can belong to.

    It is None for classes of others, of which transformers too reads the encoder only.

    Raises:
        UserError: a misspelt architecture, or a classifier without an architecture.
    """
    heads = {architecture: head for head, architecture in names.heads(config).items()}
    path = directory / "config.json"
    architectures = read_json(path).get("architectures")
    if architectures:
        listed = [architectures] if isinstance(architectures, str) else architectures
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise UserError(f"{path}: architectures is {listed!r:.80}; it must be a list of names")
        for name in listed:
            if name in heads:
                return heads[name]
        if difflib.get_close_matches(listed[0], heads, n=1, cutoff=0.95):
            raise UserError(f"{path}: architectures is {listed}; {did_you_mean(listed[0], heads)}")
        return None
    tensors = [*tensors]
    if any(name.startswith("classifier.") for name in tensors):
        raise UserError(
            f"{path}: architectures is missing, and a classifier alone does not tell which head it"
            f" is; add one of {', '.join(list(heads)[2:])}"
        )
    language_model = "causal_lm" if config.causal else "masked_lm"
    return language_model if has_head(tensors) else "none"
