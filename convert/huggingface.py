"""Directories of the transformers library, format `hf`, as versions 4 and 5 both load them."""

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax import hf_config
from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, did_you_mean, together
from modernbert_jax.io import files
from modernbert_jax.pipeline import Dense

from . import lazy, modules, names, tensors
from .checkpoint import Checkpoint, Layout, labels

CARRIED = (
    *tokenizers.FILES,
    "chat_template.jinja",
    "generation_config.json",
    "vocab.txt",
)
"""Files that go from checkpoint to checkpoint byte for byte."""

_FOR_VERSION_4 = (
    (rb'("tokenizer_class"\s*:\s*)"TokenizersBackend"', rb'\1"PreTrainedTokenizerFast"'),
    (rb'"extra_special_tokens"(\s*:\s*\[)', rb'"additional_special_tokens"\1'),
)
"""What version 5 writes into `tokenizer_config.json` and version 4 stops at; 5 reads both."""

DECODER = "decoder.weight"

_OF_HEADS = ("head.", "lm_head.", "decoder.", "classifier.")
"""How the names of tensors begin that no encoder has."""


def read(directory: Path, projections: Sequence[Dense] = (), bare: bool = False) -> Checkpoint:
    """The checkpoint in a directory, its arrays lazy.

    Raises `UserError` that lists what is wrong.

    Args:
        directory: with `config.json`.
        projections: dense layers whose weights lie in folders of it.
        bare: takes a model without the head that its config names for one that needs none.
    """
    (config, extra, declared), weights = together(
        lambda: read_config(directory), lambda: tensors.scan(directory)
    )
    raw = files.read_json(directory / "config.json")
    # Version 4 once had rotary tables among its buffers; they follow from the config.
    found = {n: x for n, x in weights.items() if not n.endswith("inv_freq")}
    prefix = names.PREFIX if any(n.startswith(names.PREFIX) for n in found) else ""
    headless = bare and not any(n.startswith(_OF_HEADS) for n in found)
    head = "none" if headless else _head(raw, config, found, directory)
    config, copy = tie(config, head, found, prefix, directory)
    for dense in projections:
        behind = tensors.scan(directory / dense.path)
        found |= {f"{dense.path}/{n}": x for n, x in behind.items()}
    rows = names.table(config, head, labels(head, extra), prefix, projections)
    stored = {n: x for n, x in found.items() if not (copy and n == DECODER)}
    params = names.to_params(stored, rows, str(directory))
    home = {n: names.leaf(params, row.path).dtype.name for n, row in rows.items()}
    home |= {DECODER: home[prefix + names.TOKEN_TABLE]} if copy else {}
    dtypes = {n: x.dtype.name for n, x in found.items() if x.dtype.name != home[n]}
    return Checkpoint(
        config=config,
        params=params,
        head=head,
        files=read_carried(directory),
        extra=extra,
        layout=Layout(prefix=prefix, decoder_copy=copy, dtypes=dtypes, dtype=declared),
    )


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fills an existing, empty directory."""
    layout = checkpoint.layout
    written = names.to_tensors(checkpoint.params, checkpoint.rows(layout.prefix))
    tied = checkpoint.head in names.LANGUAGE_MODELS and checkpoint.config.tie_word_embeddings
    if layout.decoder_copy and tied:
        written[DECODER] = written[layout.prefix + names.TOKEN_TABLE]
    written = {n: x.astype(layout.dtypes.get(n, x.dtype), copy=False) for n, x in written.items()}
    folders: dict[str, dict[str, names.Array]] = {"": {}}
    for name, array in written.items():
        folder, _, name = name.rpartition("/")
        folders.setdefault(folder, {})[name] = array
    for folder, held in folders.items():
        (directory / folder).mkdir(exist_ok=True, parents=True)
        tensors.write(directory / folder, held)
    files.write_json(directory / "config.json", config_json(checkpoint))
    write_carried(checkpoint, directory)


def read_config(directory: Path) -> tuple[ModernBertConfig, dict[str, Any], str | None]:
    """From `config.json`: the architecture, the keys that are kept beside it, and the dtype."""
    path = directory / "config.json"
    raw = files.read_json(path)
    try:
        config = ModernBertConfig.from_hf(raw)
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('config.json: ')}") from None
    declared = raw.get("dtype", raw.get("torch_dtype"))
    return config, hf_config.unknown_keys(raw), declared if isinstance(declared, str) else None


def config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of `config.json`. Both names of the dtype: old version 4 reads the longer."""
    dtype = checkpoint.layout.dtype or checkpoint.dtype
    architecture = names.heads(checkpoint.config)[checkpoint.head]
    keys = {"architectures": [architecture], "dtype": dtype, "torch_dtype": dtype}
    return checkpoint.config.to_hf(**{**checkpoint.extra, **keys})


def read_carried(directory: Path) -> dict[str, bytes]:
    """The contents of the files in `CARRIED`, and of those of `modules`, that a directory has."""
    wanted = (*CARRIED, *modules.files_in(directory))
    return {n: (directory / n).read_bytes() for n in wanted if (directory / n).is_file()}


def write_carried(checkpoint: Checkpoint, directory: Path) -> None:
    """The files as they came, but for what transformers 4 cannot read in one of them."""
    for name, content in checkpoint.files.items():
        for pattern, replacement in _FOR_VERSION_4 if name == "tokenizer_config.json" else ():
            content = re.sub(pattern, replacement, content)
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_bytes(content)
    if checkpoint.tokenizer and "tokenizer_config.json" not in checkpoint.files:
        files.write_json(directory / "tokenizer_config.json", _tokenizer_config(checkpoint))


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The least that transformers needs, naming the special tokens that there are."""
    config = tokenizers.default_config(checkpoint.config.max_position_embeddings)
    for role in tokenizers.ROLES:
        try:
            found = getattr(checkpoint.tokenizer, f"{role}_id")
        except UserError:
            found = None
        if found is None:
            del config[f"{role}_token"]
        else:
            config[f"{role}_token"] = checkpoint.tokenizer.token(found)
    return config


def _head(
    raw: Mapping[str, Any],
    config: ModernBertConfig,
    found: Mapping[str, names.Array],
    directory: Path,
) -> str:
    """The head that the config names, or else the one that the tensors can only belong to."""
    heads = {architecture: head for head, architecture in names.heads(config).items()}
    given = raw.get("architectures")
    if given:
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise UserError(
                f"{directory / 'config.json'}: architectures is {given!r:.80}; it must be a list of"
                " names"
            )
        for name in given:
            if name in heads:
                return heads[name]
        raise UserError(
            f"{directory / 'config.json'}: architectures is {given};"
            f" {did_you_mean(str(given[0]), heads)}"
        )
    if any(name.startswith("classifier.") for name in found):
        raise UserError(
            f"{directory / 'config.json'}: architectures is missing, and a classifier alone does"
            f" not tell which head it is; add one of {', '.join(list(heads)[2:])}"
        )
    language_model = "causal_lm" if config.causal else "masked_lm"
    return language_model if any(n.startswith(_OF_HEADS) for n in found) else "none"


def tie(
    config: ModernBertConfig,
    head: str,
    found: Mapping[str, names.Array],
    prefix: str,
    directory: Path,
) -> tuple[ModernBertConfig, bool]:
    """The config with the tie that the tensors have, and whether the tied decoder is stored too.

    A stored decoder that differs from the embedding unties them, as in transformers 5; version 4
    would ignore it.
    """
    table = found.get(prefix + names.TOKEN_TABLE)
    stored = found.get(DECODER)
    tied = head in names.LANGUAGE_MODELS and config.tie_word_embeddings
    if not tied or stored is None or table is None:
        return config, False
    if lazy.equal(stored, table):
        return config, True
    warnings.warn(
        f"{directory}: tie_word_embeddings is true, but {DECODER} differs from the embedding;"
        " they are kept apart, as in transformers 5",
        stacklevel=2,
    )
    return dataclasses.replace(config, tie_word_embeddings=False), False
