"""Checkpoints of the research code, format `flexbert`: Composer's `.pt` files, both ways.

Such a file holds the state of a training run, of which the weights, the configuration and the
tokenizer are read. What the research code has no place for (other keys of a `config.json`, the
bytes of tokenizer files) is written beside, where it does not look, and taken up again unless the
file has been changed since.
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

from . import (
    flexbert_config,
    flexbert_switches,
    flexbert_tokenizer,
    huggingface,
    names,
    plain,
    torch_file,
    torch_write,
)
from .checkpoint import Checkpoint, Layout, labels
from .lazy import Lazy

SUFFIX = ".pt"
LATEST = "latest-rank0.pt"
"""The name under which the research code looks for a checkpoint."""

KEY = "flexbert"
"""Where `Checkpoint.extra` keeps the research configuration."""

_OWN = "modernbert_jax"
_COMPOSER = "model."
"""What Composer puts in front of every name."""

_CLASSIFIER_KEYS = ("id2label", "label2id", "problem_type", "num_labels")
_ID_KEYS = tuple(f"{role}_token_id" for role in ("bos", "cls", "eos", "sep", "pad"))


def read(path: Path) -> Checkpoint:
    """The checkpoint in a file, or in a directory with one; its arrays are lazy.

    Raises `UserError` that lists what is wrong.
    """
    path = _file(path)
    archive = torch_file.Archive(path)
    try:
        return _read(archive, path)
    except UserError as error:
        said = str(error).removeprefix(f"{path}: ").removeprefix("config.json: ")
        raise UserError(f"{path}: {said}") from None


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fills an existing, empty directory."""
    write_file(checkpoint, directory / LATEST)


def write_file(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a file that Composer, or `torch.load(weights_only=True)`, loads.

    Raises `UserError` for what the research code cannot express.
    """
    known = checkpoint.extra.get(KEY)
    known = known if isinstance(known, Mapping) else {}
    content = flexbert_config.write(checkpoint.config, checkpoint.head, known)
    about = {
        "file_extension": ".json",
        "content": plain.value({**content, **_of(checkpoint.extra, _CLASSIFIER_KEYS)}),
        "class": flexbert_config.class_path(checkpoint.head),
    }
    tokenizer, texts = flexbert_tokenizer.write(checkpoint.files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers does not read this file
        own = {
            "config": plain.value(huggingface.config_json(checkpoint)),
            "layout": plain.value(dataclasses.asdict(checkpoint.layout)),
            "files": texts,
        }
    integrations = {"huggingface": {"model": {"config": about}, "tokenizer": tokenizer}, _OWN: own}
    state = {"model": _state(checkpoint), "integrations": integrations}
    torch_write.write(path, {"state": {**state, "run_name": path.stem}, "rng": []})


def _read(archive: torch_file.Archive, path: Path) -> Checkpoint:
    root = archive.value if isinstance(archive.value, Mapping) else {}
    model = plain.at(root, "state", "model")
    integrations = plain.at(root, "state", "integrations")
    about = plain.at(integrations, "huggingface", "model", "config")
    content = plain.value(plain.at(about, "content"))
    if not model or not content:
        raise UserError("no checkpoint of Composer: it has no state.model, or no configuration")
    research = archive.tensors({k: v for k, v in model.items() if not _is_buffer(k)})
    head = _head(research, about.get("class"))
    files = flexbert_tokenizer.read(plain.at(integrations, "huggingface", "tokenizer"))
    config = flexbert_config.read(content, head, **_token_ids(content, files))
    extra: dict[str, Any] = {}
    layout = Layout()
    if own := plain.at(integrations, _OWN):
        again = _own_config(own, config, head)
        config, extra, layout = again or (config, extra, layout)
        files |= flexbert_tokenizer.texts(own.get("files"))
    extra = {
        **_of(content, _CLASSIFIER_KEYS if flexbert_switches.classifies(head) else ()),
        **extra,
        KEY: content,
    }
    found = {_hf_name(name, layout.prefix): x for name, x in research.items()}
    config, tied = huggingface.tie(config, head, found, layout.prefix, path)
    rows = names.table(config, head, labels(head, extra), layout.prefix)
    stored = {n: x for n, x in found.items() if not (tied and n == huggingface.DECODER)}
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
    """What this library wrote beside; None where the research configuration says otherwise."""
    raw = plain.value(plain.at(own, "config"))
    try:
        found, layout = (
            ModernBertConfig.from_hf(raw),
            Layout(**plain.value(plain.at(own, "layout"))),
        )
    except (TypeError, UserError) as error:
        raise UserError(f"state.integrations.{_OWN}: damaged ({error})") from None
    if flexbert_config.write(found, head, {}) != flexbert_config.write(config, head, {}):
        return None
    return found, hf_config.unknown_keys(raw), layout


def _state(checkpoint: Checkpoint) -> dict[str, Any]:
    """The tensors under the names of the research code, in its order."""
    layout, config = checkpoint.layout, checkpoint.config
    rows = names.table(config, checkpoint.head, checkpoint.labels, layout.prefix)
    tensors = names.to_tensors(checkpoint.params, rows)
    bias = {n: tensors.pop(n) for n in ("decoder.bias",) if n in tensors}
    if checkpoint.head == "masked_lm" and config.tie_word_embeddings:
        tensors[huggingface.DECODER] = tensors[layout.prefix + names.TOKEN_TABLE]
    return {
        _research_name(n, layout.prefix): x.astype(layout.dtypes.get(n, x.dtype), copy=False)
        for n, x in {**tensors, **bias}.items()
    }


def _hf_name(research: str, prefix: str) -> str:
    """`model.bert.encoder.layers.0` becomes `model.layers.0`, `model.head` is `head`."""
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
    """Rotary tables, which follow from the configuration."""
    return isinstance(name, str) and name.endswith("inv_freq")


def _head(research: Mapping[str, Lazy], kind: Any) -> str:
    """By the names of the tensors; of two classifiers that look alike, by that of the class."""
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
    """The research configuration has those of another model: the tokenizer tells, if it is there.

    Without one, a vocabulary of ModernBERT's size is taken for ModernBERT's.
    """
    if "tokenizer.json" in files:
        tokenizer, size = Tokenizer.from_files(files), content.get("vocab_size")
        ids = dict.fromkeys(_ID_KEYS)
        for role, keys in (("cls", ("cls", "bos")), ("sep", ("sep", "eos")), ("pad", ("pad",))):
            found = tokenizer.role_id(role)
            if found is not None and isinstance(size, int) and found < size:
                ids |= {f"{key}_token_id": found for key in keys}
        return ids
    known = content.get("vocab_size") == ModernBertConfig.vocab_size
    return {} if known else dict.fromkeys(_ID_KEYS)


def _of(keys: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    return {key: keys[key] for key in wanted if keys.get(key) is not None}


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / LATEST).is_file():
        return path / LATEST
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise UserError(
            f"{path}: holds {', '.join(p.name for p in found) or 'no .pt file'}; name one of them"
        )
    return found[0]
