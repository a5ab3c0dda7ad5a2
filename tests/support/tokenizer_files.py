"""Variants of a tokenizer's files: tokens and settings that stand outside `tokenizer.json`."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Variant:
    """Changes of a tokenizer's files."""

    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keys of `tokenizer_config.json`."""
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other files."""
    added: list[str] = dataclasses.field(default_factory=list)
    """Tokens that they add, in the order of their ids."""
    special: bool = True
    """Whether those are special."""


ONE = {"content": "<one>", "special": True, "normalized": False, "lstrip": False, "rstrip": False}
TWO = {**ONE, "content": "<two>", "lstrip": True}

VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    "decoder": Variant(
        {"added_tokens_decoder": {"500": TWO, "499": ONE}}, added=["<one>", "<two>"]
    ),
    "not special": Variant(
        {"added_tokens_decoder": {"499": {**ONE, "special": False}}}, added=["<one>"], special=False
    ),
    "added_tokens.json": Variant(
        files={"added_tokens.json": {"<two>": 9, "<one>": 8}},
        added=["<one>", "<two>"],
        special=False,
    ),
    "special_tokens_map.json": Variant(
        files={"special_tokens_map.json": {"bos_token": "<one>", "eos_token": TWO}},
        added=["<one>", "<two>"],
    ),
    "both legacy files": Variant(
        files={
            "special_tokens_map.json": {"bos_token": "<one>"},
            "added_tokens.json": {"<one>": 8},
        },
        added=["<one>"],
    ),
    "the map beside a decoder": Variant(
        {"added_tokens_decoder": {"499": ONE}},
        {"special_tokens_map.json": {"eos_token": "<two>"}},
        added=["<one>"],
    ),
    "named in the configuration": Variant({"bos_token": "<one>"}, added=["<one>"]),
    "left": Variant({"truncation_side": "left", "padding_side": "left"}),
    "left in tokenizer.json": Variant(
        files={
            "tokenizer.json": {
                "truncation": {
                    "direction": "Left",
                    "max_length": 8,
                    "strategy": "LongestFirst",
                    "stride": 0,
                }
            }
        }
    ),
    "split": Variant({"split_special_tokens": True}),
}


def variant(files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """The files of a tokenizer, changed."""
    changes = VARIANTS[name]
    changed = with_config(files, changes.config)
    for file, content in changes.files.items():
        before = json.loads(changed.get(file, b"{}"))
        changed[file] = json.dumps({**before, **content}).encode()
    return changed


def with_config(files: Mapping[str, bytes], config: Mapping[str, Any]) -> dict[str, bytes]:
    """The files with other keys in `tokenizer_config.json`."""
    before = json.loads(files["tokenizer_config.json"])
    return {**files, "tokenizer_config.json": json.dumps({**before, **config}).encode()}
