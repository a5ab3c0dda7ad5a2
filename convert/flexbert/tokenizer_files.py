"""Tokenizer files inside a Composer checkpoint, where they are stored by stem and suffix."""

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from modernbert_jax.io.json_reader import parse_json

from .. import huggingface
from . import plain


def read(state: Mapping[str, Any]) -> dict[str, bytes]:
    """Contents by name of the files in a checkpoint's `tokenizer`; unknown names are skipped."""
    files = {}
    for stem, entry in state.items():
        if not isinstance(entry, Mapping):
            continue
        suffix, content = entry.get("file_extension"), entry.get("content")
        name = f"{stem}{suffix}"
        if name in huggingface.CARRIED and (data := _encode(name, suffix, content)) is not None:
            files[name] = data
    return files


def write(files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, str]]:
    """The value that `read` reads, and the text by name of files that it would change."""
    state: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for name, data in files.items():
        path = PurePath(name)
        content = _decode(path.suffix, data)
        if content is not None:
            state[path.stem] = {"file_extension": path.suffix, "content": content}
        if content is None or _encode(name, path.suffix, content) != data:
            texts[name] = data.decode("latin1")
    return state, texts


def from_texts(texts: Any) -> dict[str, bytes]:
    """Contents by name of the files in the second result of `write`."""
    pairs = texts.items() if isinstance(texts, Mapping) else ()
    return {
        name: text.encode("latin1", "replace")
        for name, text in pairs
        if name in huggingface.CARRIED and isinstance(text, str)
    }


def _encode(name: str, suffix: Any, content: Any) -> bytes | None:
    """The bytes of a file as the libraries format it; None if the content is unsupported."""
    if suffix == ".json" and isinstance(content, Mapping | list):
        end = "" if name == "tokenizer.json" else "\n"
        text = json.dumps(plain.value(content), indent=2, ensure_ascii=False) + end
        return text.encode("utf-8", "replace")
    if suffix == ".txt" and isinstance(content, list) and all(isinstance(x, str) for x in content):
        return "\n".join(content).encode("utf-8", "replace")
    if suffix == ".model" and type(content) is bytes:
        return content
    return None


def _decode(suffix: str, data: bytes) -> Any:
    """The value that Composer stores for a file; None if it stores none."""
    try:
        if suffix == ".json":
            return parse_json(data)
        if suffix == ".txt":
            return data.decode().split("\n")
    except ValueError:  # UserError too
        return None
    return data if suffix == ".model" else None
