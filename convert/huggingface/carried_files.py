"""Small files of a directory, such as the tokenizer's, that are carried byte for byte."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.io import files
from modernbert_jax.io.json_reader import read_bytes
from modernbert_jax.tokenizer import Tokenizer

from .. import module_files
from ..checkpoint import Checkpoint

CARRIED = (
    *tokenizers.FILES,
    "chat_template.jinja",
    "generation_config.json",
    "vocab.txt",
)
"""Files that every format carries, besides those of `module_files`."""

TOKENIZER_CONFIG = "tokenizer_config.json"

_FOR_VERSION_4 = (
    (rb'("tokenizer_class"\s*:\s*)"TokenizersBackend"', rb'\1"PreTrainedTokenizerFast"'),
    (rb'"extra_special_tokens"(\s*:\s*\[)', rb'"additional_special_tokens"\1'),
)
"""Values of `tokenizer_config.json` that only version 5 reads, with ones that both read."""


def read_carried(directory: Path) -> dict[str, bytes]:
    """Contents of the carried files that a directory has, by path."""
    candidates = (*CARRIED, *module_files.files_in(directory))
    return {n: read_bytes(directory / n) for n in candidates if (directory / n).is_file()}


def write_carried(checkpoint: Checkpoint, directory: Path) -> None:
    """Write the carried files; `tokenizer_config.json` is adapted to transformers 4 or created."""
    for name, content in checkpoint.files.items():
        for pattern, replacement in _FOR_VERSION_4 if name == TOKENIZER_CONFIG else ():
            content = re.sub(pattern, replacement, content)
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_bytes(content)
    if checkpoint.tokenizer and TOKENIZER_CONFIG not in checkpoint.files:
        length = checkpoint.config.max_position_embeddings
        config = _tokenizer_config(checkpoint.tokenizer, length)
        files.write_json(directory / TOKENIZER_CONFIG, config)


def with_length(checkpoint: Checkpoint, length: int | None) -> Checkpoint:
    """The checkpoint with a tokenizer that declares the longest input in tokens; None keeps it."""
    if length is None or checkpoint.tokenizer is None:
        return checkpoint
    length = min(length, checkpoint.config.max_position_embeddings)
    config = module_files.json_of(checkpoint.files, TOKENIZER_CONFIG)
    if config.get("model_max_length") == length:
        return checkpoint
    config = config or _tokenizer_config(checkpoint.tokenizer, length)
    content = json.dumps({**config, "model_max_length": length}, indent=2, ensure_ascii=False)
    carried = {**checkpoint.files, TOKENIZER_CONFIG: content.encode()}
    return dataclasses.replace(checkpoint, files=carried)


def _tokenizer_config(tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    """The minimum that transformers needs, with the special tokens that the tokenizer has."""
    config = tokenizers.default_config(max_length)
    for role in tokenizers.ROLES:
        token_id = tokenizer.role_id(role)
        if token_id is None:
            del config[f"{role}_token"]
        else:
            config[f"{role}_token"] = tokenizer.token(token_id)
    if getattr(tokenizer.backend.pre_tokenizer, "add_prefix_space", False):
        config["add_prefix_space"] = True  # version 4 takes the space away without it
    return config
