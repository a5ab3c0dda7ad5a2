"""Read and write one of Composer's `.pt` files.

Such a file holds the state of a training run; the weights, the configuration and the tokenizer are
read. Content without a place in the research code (other keys of a `config.json`, the bytes of
tokenizer files) is written under a key of our own, and read again unless the file has changed.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax import hf_config
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from .. import huggingface, lazy, names, wrappers
from ..checkpoint import Checkpoint, Layout, label_count
from ..name_rows import TOKEN_TABLE
from ..torch_files import archives, writer
from . import configuration, plain, switches, tokenizer_files

SUFFIX = ".pt"
LATEST = "latest-rank0.pt"
"""File name under which the research code looks for a checkpoint."""

KEY = "flexbert"
"""Key of the research configuration in `Checkpoint.extra`."""

_OWN = "modernbert_jax"
"""Our own key in the file."""

_COMPOSER = "model."
"""Prefix that Composer adds to every name."""

_CLASSIFIER_KEYS = ("id2label", "label2id", "problem_type", "num_labels")
_ID_KEYS = tuple(f"{role}_token_id" for role in ("bos", "cls", "eos", "sep", "pad"))


def read(path: Path) -> Checkpoint:
    """Read the checkpoint in a file, or in a directory with one file, with lazy arrays.

    Raises:
        UserError: all problems of the file.
    """
    path = _file(path)
    archive = archives.Archive(path)
    try:
        return from_archive(archive, path)
    except UserError as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix("config.json: ")
        raise UserError(f"{path}: {reason}") from None


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory."""
    write_file(checkpoint, directory / LATEST, Path(LATEST).stem)


def write_file(checkpoint: Checkpoint, path: Path, run_name: str) -> None:
    """Write a file that Composer, or `torch.load(weights_only=True)`, loads.

    Args:
        checkpoint: the model.
        path: of the file, which may be temporary: it leaves no trace in the content.
        run_name: name that Composer gives to the run.

    Raises:
        UserError: the research code cannot express the model.
    """
    known = checkpoint.extra.get(KEY)
    known = known if isinstance(known, Mapping) else {}
    content = configuration.write(checkpoint.config, checkpoint.head, known)
    about = {
        "file_extension": ".json",
        "content": plain.value({**content, **_present(checkpoint.extra, _CLASSIFIER_KEYS)}),
        "class": configuration.class_path(checkpoint.head),
    }
    tokenizer, texts = tokenizer_files.write(checkpoint.files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers does not read this file
        own = {
            "config": plain.value(huggingface.config_json(checkpoint)),
            "layout": plain.value(dataclasses.asdict(checkpoint.layout)),
            "files": texts,
        }
    integrations = {"huggingface": {"model": {"config": about}, "tokenizer": tokenizer}, _OWN: own}
    state = {"model": _state(checkpoint), "integrations": integrations}
    writer.write(path, {"state": {**state, "run_name": run_name}, "rng": []})


def from_archive(archive: archives.Archive, path: Path) -> Checkpoint:
    """The checkpoint in an archive that was read from `path`."""
    root = archive.value if isinstance(archive.value, Mapping) else {}
    model = plain.at(root, "state", "model")
    integrations = plain.at(root, "state", "integrations")
    about = plain.at(integrations, "huggingface", "model", "config")
    content = plain.value(plain.at(about, "content"))
    if not model or not content:
        raise UserError("not a checkpoint of Composer: it has no state.model, or no configuration")
    research = archive.tensors({k: v for k, v in model.items() if not _is_buffer(k)})
    research = wrappers.unwrapped(research, path)
    head = _head(research, about.get("class"))
    files = tokenizer_files.read(plain.at(integrations, "huggingface", "tokenizer"))
    config = configuration.read(content, head, **_token_ids(content, files))
    extra: dict[str, Any] = {}
    layout = Layout()
    if own := plain.at(integrations, _OWN):
        config, extra, layout = _own_config(own, config, head) or (config, extra, layout)
        files |= tokenizer_files.from_texts(own.get("files"))
    extra = {
        **_present(content, _CLASSIFIER_KEYS if switches.classifies(head) else ()),
        **extra,
        KEY: content,
    }
    tensors = {_hf_name(name, layout.prefix): x for name, x in research.items()}
    config, tied = huggingface.tie(config, head, tensors, layout.prefix, path)
    rows = names.table(config, head, label_count(head, extra), layout.prefix)
    stored = {n: x for n, x in tensors.items() if not (tied and n == huggingface.DECODER)}
    params = names.to_params(stored, rows, str(path))
    home = {n: names.leaf(params, row.path).dtype.name for n, row in rows.items()}
    dtypes = {n: x.dtype.name for n, x in stored.items() if x.dtype.name != home[n]}
    return Checkpoint(
        config=config,
        params=params,
        head=head,
        files=files,
        extra=extra,
        layout=dataclasses.replace(layout, dtypes=dtypes),
    )


def _own_config(
    own: Mapping[str, Any], config: ModernBertConfig, head: str
) -> tuple[ModernBertConfig, dict[str, Any], Layout] | None:
    """Content of our own key; None if it contradicts the research configuration."""
    raw = plain.value(plain.at(own, "config"))
    try:
        kept, layout = ModernBertConfig.from_hf(raw), Layout(**plain.value(plain.at(own, "layout")))
    except (TypeError, UserError) as error:
        raise UserError(f"state.integrations.{_OWN}: damaged ({error})") from None
    if configuration.write(kept, head, {}) != configuration.write(config, head, {}):
        return None
    return kept, hf_config.unknown_keys(raw), layout


def _state(checkpoint: Checkpoint) -> dict[str, lazy.Array]:
    """The tensors under the names of the research code, in its order."""
    layout, config = checkpoint.layout, checkpoint.config
    rows = names.table(config, checkpoint.head, checkpoint.labels, layout.prefix)
    tensors = names.to_tensors(checkpoint.params, rows)
    bias = {n: tensors.pop(n) for n in ("decoder.bias",) if n in tensors}
    if checkpoint.head == "masked_lm" and config.tie_word_embeddings:
        tensors[huggingface.DECODER] = tensors[layout.prefix + TOKEN_TABLE]
    return {
        _research_name(n, layout.prefix): x.astype(layout.dtypes.get(n, x.dtype), copy=False)
        for n, x in {**tensors, **bias}.items()
    }


def _hf_name(research: str, prefix: str) -> str:
    """Rename `model.bert.encoder.layers.0` to `model.layers.0` and `model.head` to `head`."""
    name = research.removeprefix(_COMPOSER)
    if not name.startswith("bert."):
        return name
    return prefix + name.removeprefix("bert.").removeprefix("encoder.")


def _research_name(name: str, prefix: str) -> str:
    inner = name.removeprefix(prefix)
    if inner.startswith("layers."):
        return f"{_COMPOSER}bert.encoder.{inner}"
    if inner.startswith(("embeddings.", "final_norm.")):
        return f"{_COMPOSER}bert.{inner}"
    return _COMPOSER + name


def _is_buffer(name: Any) -> bool:
    """True for rotary tables, which follow from the configuration."""
    return isinstance(name, str) and name.endswith("inv_freq")


def _head(research: Mapping[str, lazy.Lazy], kind: Any) -> str:
    """The head that the tensors imply; the class tells apart the two kinds of classifiers."""
    if any(name.startswith(f"{_COMPOSER}lm_head.") for name in research):
        raise UserError("a decoder (it has lm_head); only encoders are read from research files")
    if any(name.startswith(f"{_COMPOSER}classifier.") for name in research):
        choice = isinstance(kind, str) and kind.endswith("MultipleChoice")
        return "multiple_choice" if choice else "sequence_classification"
    headed = any(
        name.startswith((f"{_COMPOSER}head.", f"{_COMPOSER}decoder.")) for name in research
    )
    return "masked_lm" if headed else "none"


def _token_ids(content: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, int | None]:
    """Ids of special tokens from the tokenizer: the research configuration has other models' ids.

    Without a tokenizer, a vocabulary of ModernBERT's size counts as ModernBERT's.
    """
    if "tokenizer.json" in files:
        tokenizer, size = Tokenizer(files), content.get("vocab_size")
        ids: dict[str, int | None] = dict.fromkeys(_ID_KEYS)
        for role, keys in (("cls", ("cls", "bos")), ("sep", ("sep", "eos")), ("pad", ("pad",))):
            token_id = tokenizer.role_id(role)
            if token_id is not None and isinstance(size, int) and token_id < size:
                ids |= {f"{key}_token_id": token_id for key in keys}
        return ids
    known = content.get("vocab_size") == ModernBertConfig.vocab_size
    return {} if known else dict.fromkeys(_ID_KEYS)


def _present(keys: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    return {key: keys[key] for key in wanted if keys.get(key) is not None}


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / LATEST).is_file():
        return path / LATEST
    candidates = sorted(path.glob(f"*{SUFFIX}"))
    if len(candidates) != 1:
        listed = ", ".join(p.name for p in candidates) or "no .pt file"
        raise UserError(f"{path}: holds {listed}; name one of them")
    return candidates[0]
