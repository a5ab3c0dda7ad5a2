"""Tokenizers within a Composer checkpoint: the content of their files, by the files' stems."""

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from . import huggingface, plain


def read(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that a checkpoint's `tokenizer` holds; other names than known ones are left."""
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
    """What `read` reads, and by name the text of the files that would not come back the same."""
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


def texts(found: Any) -> dict[str, bytes]:
    """The files of `write`'s second part."""
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {
        name: text.encode("latin1", "replace")
        for name, text in pairs
        if name in huggingface.CARRIED and isinstance(text, str)
    }


def _encode(name: str, suffix: Any, content: Any) -> bytes | None:
    """The bytes of a file, laid out as the libraries write it; None if there are none."""
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
    """What Composer keeps of a file; None where it keeps nothing."""
    try:
        if suffix == ".json":
            return json.loads(data)
        if suffix == ".txt":
            return data.decode().split("\n")
    except (ValueError, RecursionError):
        return None
    return data if suffix == ".model" else None
