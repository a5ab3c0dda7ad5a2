"""What the names of a checkpoint's tensors say about parameters, which several layers may share.

Users name tensors as checkpoints do: `model.layers.3.attn.Wqkv.weight`. Here layers that are
scanned lie in one array, so that what is said of a tensor holds for one entry of its stack.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError, did_you_mean

Path = tuple[str, ...]
Rows = Mapping[str, names.Row]


def by_parameter(rows: Rows, rule: Callable[[str], Any]) -> dict[Path, np.ndarray]:
    """What a rule says of every tensor's name: by the path of the parameter, [] or [G] for a stack.

    Raises `UserError` where it says two things of tensors that are parts of one (a decoder's
    q_proj, k_proj and v_proj).
    """
    found: dict[Path, dict[int | None, Any]] = {}
    for name, row in rows.items():
        said = rule(name)
        if found.setdefault(row.path, {}).setdefault(row.index, said) != said:
            raise UserError(f"{name}: is one tensor with its neighbours; they cannot be parted")
    return {
        path: np.array(entries[None] if None in entries else [entries[i] for i in sorted(entries)])
        for path, entries in found.items()
    }


def matching(rows: Rows, patterns: Sequence[str], option: str) -> set[str]:
    """Names of the tensors in which one of the regular expressions is found.

    Raises `UserError` for an expression that is none, or is found in no name; `option` is what the
    user knows it by.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            hits = {name for name in rows if re.search(pattern, name)}
        except re.error as error:
            raise UserError(f"{option} {pattern!r}: not a regular expression ({error})") from None
        if not hits:
            near = did_you_mean(pattern, {re.sub(r"\d+", "0", name) for name in rows})
            raise UserError(f"{option} {pattern!r}: matches no tensor; {near}")
        chosen |= hits
    return chosen


def depth(config: ModernBertConfig, name: str) -> int:
    """How far from the input a tensor lies: embeddings 0, layer i at i + 1, the rest behind all."""
    if ".embeddings." in f".{name}":
        return 0
    layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return int(layer[1]) + 1 if layer else config.num_hidden_layers + 1
