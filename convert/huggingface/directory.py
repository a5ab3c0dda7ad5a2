"""Read and write a directory: config, weights in one file or shards, and the carried files."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import together
from modernbert_jax.io import files
from modernbert_jax.pipeline import Layer

from .. import lazy, names, wrappers
from ..checkpoint import Checkpoint, Layout, label_count
from ..name_rows import TOKEN_TABLE
from . import weight_files
from .carried_files import read_carried, write_carried
from .configuration import config_json, has_head, head_of, read_config

DECODER = "decoder.weight"
"""Name of the output embeddings, which may be stored although they are tied."""


def read(
    directory: Path,
    layers: Sequence[Layer] = (),
    bare: bool = False,
    root: Path | None = None,
) -> Checkpoint:
    """Read the checkpoint in a directory, with lazy arrays.

    Args:
        directory: with `config.json`.
        layers: layers of modules whose weights are in subfolders of `root`.
        bare: accept a model without the head that its config names.
        root: directory of the whole model; None is the same directory.

    Raises:
        UserError: all problems of the configuration and the weights.
    """
    (config, extra, declared), weights = together(
        lambda: read_config(directory), lambda: weight_files.scan(directory)
    )
    # Version 4 once stored rotary tables as buffers; they follow from the config.
    tensors: dict[str, lazy.Array]
    tensors = {n: x for n, x in weights.items() if not n.endswith("inv_freq")}
    tensors = wrappers.unwrapped(tensors, directory)
    prefix = names.PREFIX if any(n.startswith(names.PREFIX) for n in tensors) else ""
    headless = bare and not has_head(tensors)
    head = "none" if headless else head_of(config, tensors, directory)
    if head is None:
        head, tensors = _of_own_class(config, prefix, tensors, directory)
    config, copy = tie(config, head, tensors, prefix, directory)
    for layer in layers:
        folder = weight_files.scan((root or directory) / layer.path)
        tensors |= {f"{layer.path}/{n}": x for n, x in folder.items()}
    rows = names.table(config, head, label_count(head, extra), prefix, layers)
    stored = {n: x for n, x in tensors.items() if not (copy and n == DECODER)}
    params = names.to_params(stored, rows, str(directory))
    home = {n: names.leaf(params, row.path).dtype.name for n, row in rows.items()}
    home |= {DECODER: home[prefix + TOKEN_TABLE]} if copy else {}
    dtypes = {n: x.dtype.name for n, x in tensors.items() if x.dtype.name != home[n]}
    return Checkpoint(
        config=config,
        params=params,
        head=head,
        files=read_carried(directory),
        extra=extra,
        layout=Layout(prefix=prefix, decoder_copy=copy, dtypes=dtypes, dtype=declared),
    )


def _of_own_class(
    config: ModernBertConfig, prefix: str, tensors: dict[str, lazy.Array], directory: Path
) -> tuple[str, dict[str, lazy.Array]]:
    """The head of a model of a class that is not known, and the tensors that it has.

    It is the language model's where all tensors of that are there, else none.
    """
    copy = {DECODER, prefix + TOKEN_TABLE}
    language_model = "causal_lm" if config.causal else "masked_lm"
    head = next(
        (
            h
            for h in (language_model, "none")
            if names.table(config, h, 2, prefix).keys() <= tensors.keys()
        ),
        "none",
    )
    kept = {*names.table(config, head, 2, prefix), *(copy if head != "none" else ())}
    if left := [name for name in tensors if name not in kept]:
        warnings.warn(
            f"{directory}: architectures names a class that is not known; the encoder is read"
            f" without {', '.join(left[:5])}{' ...' if len(left) > 5 else ''}",
            stacklevel=3,
        )
    return head, {name: x for name, x in tensors.items() if name in kept}


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory."""
    layout = checkpoint.layout
    tensors = names.to_tensors(checkpoint.params, checkpoint.rows(layout.prefix))
    tied = checkpoint.head in names.LANGUAGE_MODELS and checkpoint.config.tie_word_embeddings
    if layout.decoder_copy and tied:
        tensors[DECODER] = tensors[layout.prefix + TOKEN_TABLE]
    folders: dict[str, dict[str, lazy.Array]] = {"": {}}
    for path, array in tensors.items():
        folder, _, name = path.rpartition("/")
        array = array.astype(layout.dtypes.get(path, array.dtype), copy=False)
        folders.setdefault(folder, {})[name] = array
    for folder, content in folders.items():
        (directory / folder).mkdir(exist_ok=True, parents=True)
        weight_files.write(directory / folder, content)
    files.write_json(directory / "config.json", config_json(checkpoint))
    write_carried(checkpoint, directory)


def tie(
    config: ModernBertConfig,
    head: str,
    tensors: Mapping[str, lazy.Array],
    prefix: str,
    origin: Path,
) -> tuple[ModernBertConfig, bool]:
    """Untie a decoder that differs from the embedding, as transformers 5; version 4 ignores it.

    Returns:
        The config with the tie that the tensors have, and True if a tied decoder is stored too.
    """
    table = tensors.get(prefix + TOKEN_TABLE)
    stored = tensors.get(DECODER)
    tied = head in names.LANGUAGE_MODELS and config.tie_word_embeddings
    if not tied or stored is None or table is None:
        return config, False
    if lazy.equal(stored, table):
        return config, True
    warnings.warn(
        f"{origin}: tie_word_embeddings is true, but {DECODER} differs from the embedding;"
        " they are kept apart, as in transformers 5",
        stacklevel=2,
    )
    return dataclasses.replace(config, tie_word_embeddings=False), False
