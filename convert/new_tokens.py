"""Give a checkpoint's tokenizer tokens that it lacks, such as the prefixes of late interaction.

They take over tokens `[unusedN]`, so that the vocabulary keeps its size. Without those they follow
the last token, and the embeddings get rows for them.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.tokenizer import UNUSED, Tokenizer
from modernbert_jax.tokenizer_settings import ADDED, CONFIG, SPECIAL

from . import names
from .checkpoint import Checkpoint

_MAIN = "tokenizer.json"

_FLAGS = {
    **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
    **dict.fromkeys(("normalized", "special"), False),
}
"""Flags of a new token: it is found in texts as it is written."""


def with_tokens(checkpoint: Checkpoint, tokens: Iterable[str]) -> Checkpoint:
    """The checkpoint with these tokens in its vocabulary; those that it has stay as they are.

    A token takes over the first `[unusedN]` that the modules after the model do not name, with its
    row of the embeddings. Rows that have to be added are drawn around the mean of the others, each
    number with their standard deviation, and depend on nothing else.

    Args:
        checkpoint: with a tokenizer.
        tokens: such as "[Q] "; spaces belong to them.

    Raises:
        UserError: no tokenizer, an empty token, or a tokenizer that does not take a token.
    """
    tokenizer = checkpoint.need_tokenizer("the checkpoint")
    missing = [x for x in dict.fromkeys(tokens) if tokenizer.backend.token_to_id(x) is None]
    if "" in missing:
        raise UserError("a token must have at least one character")
    if not missing:
        return checkpoint
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    free = sorted(
        (token_id, token)
        for token, token_id in vocabulary.items()
        if re.fullmatch(UNUSED, token) and token not in _named(checkpoint)
    )
    taken = {old: new for (_, old), new in zip(free, missing, strict=False)}
    ids = {new: vocabulary[old] for old, new in taken.items()}
    ids |= {x: tokenizer.vocab_size + n for n, x in enumerate(missing[len(ids) :])}
    files = _renamed(checkpoint.files, taken)
    files = _listed(files, tokenizer, {x: ids[x] for x in missing if x not in taken.values()})
    if not ids.items() <= Tokenizer(files).backend.get_vocab(with_added_tokens=True).items():
        raise UserError(f"{_MAIN}: does not take the tokens {', '.join(map(repr, missing))}")
    return _enlarged(dataclasses.replace(checkpoint, files=files), max(ids.values()) + 1)


def _named(checkpoint: Checkpoint) -> set[str]:
    """Tokens that the settings of late interaction name."""
    late = checkpoint.pipeline.late if checkpoint.pipeline else None
    if late is None:
        return set()
    return {late.query_prefix, late.document_prefix, late.filler or "", *late.skiplist}


def _renamed(files: Mapping[str, bytes], words: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a tokenizer with other words for some of its tokens."""
    changed = {**files}
    for name in (_MAIN, CONFIG, SPECIAL, ADDED, "vocab.json"):
        if name in files and words:
            changed[name] = _json(_replaced(parse_object(files[name], name), words))
    if "vocab.txt" in files:
        lines = files["vocab.txt"].decode().split("\n")
        changed["vocab.txt"] = "\n".join(words.get(line, line) for line in lines).encode()
    return changed


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    """JSON in which strings and keys that are one of these words are replaced."""
    if isinstance(value, list):
        return [_replaced(x, words) for x in value]
    if not isinstance(value, dict):
        return words.get(value, value) if isinstance(value, str) else value
    changed = {words.get(key, key): _replaced(x, words) for key, x in value.items()}
    renamed = value.get("content") in words if isinstance(value.get("content"), str) else False
    return changed | _FLAGS if renamed else changed


def _listed(
    files: Mapping[str, bytes], tokenizer: Tokenizer, ids: Mapping[str, int]
) -> dict[str, bytes]:
    """The files with more tokens, behind all that the tokenizer has from any of its files."""
    if not ids:
        return {**files}
    content, config = (parse_object(files.get(n, b"{}"), n) for n in (_MAIN, CONFIG))
    entries = content.setdefault("added_tokens", [])
    own = {entry["id"] for entry in entries}
    for token_id, token in sorted(tokenizer.backend.get_added_tokens_decoder().items()):
        if token_id not in own:
            flags = {flag: getattr(token, flag) for flag in _FLAGS}
            entries.append({"id": token_id, "content": token.content, **flags})
    entries += [{"id": i, "content": token, **_FLAGS} for token, i in ids.items()]
    changed = {**files, _MAIN: _json(content)}
    if decoder := config.get("added_tokens_decoder"):
        decoder |= {str(i): {"content": token, **_FLAGS} for token, i in ids.items()}
        changed[CONFIG] = _json(config)
    if ADDED in files:
        changed[ADDED] = _json({**parse_object(files[ADDED], ADDED), **ids})
    return changed


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def _enlarged(checkpoint: Checkpoint, size: int) -> Checkpoint:
    """The checkpoint with a vocabulary of at least a size."""
    if size <= checkpoint.config.vocab_size:
        return checkpoint
    config = dataclasses.replace(checkpoint.config, vocab_size=size)
    shapes = names.shapes(dataclasses.replace(checkpoint, config=config).rows())
    params: names.Params = {}
    for path, leaf in names.flatten(checkpoint.params).items():
        same = leaf.shape == shapes[path]
        names.put(params, path, leaf if same else _grown(path, np.asarray(leaf), shapes[path]))
    return dataclasses.replace(checkpoint, config=config, params=params)


def _grown(path: Sequence[str], array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array with more entries on the axis of the vocabulary."""
    axis = next(k for k, (a, b) in enumerate(zip(array.shape, shape, strict=True)) if a != b)
    by_token = np.moveaxis(array, axis, 0).astype(np.float32)
    rng = np.random.default_rng(zlib.crc32("/".join(path).encode()))
    noise = rng.standard_normal((shape[axis] - len(by_token), *by_token.shape[1:]), np.float32)
    drawn = by_token.mean(0) + by_token.std(0) * noise
    return np.concatenate([array, np.moveaxis(drawn, 0, axis).astype(array.dtype)], axis)
