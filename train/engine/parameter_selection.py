"""Selection of parameters by the names of a checkpoint's tensors.

Users name tensors as checkpoints do: `model.layers.3.attn.Wqkv.weight`. Parameters of scanned
layers are stacked in one array here, so a tensor corresponds to one entry of the stack.
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
    """Evaluate a rule for every tensor.

    Args:
        rows: the tensors of a model.
        rule: a function of a tensor's name.

    Returns:
        Its values by the path of the parameter: scalars [], or [G] for a stack of G layers.

    Raises:
        UserError: the values of tensors that form one parameter (a decoder's q_proj, k_proj and
            v_proj) differ.
    """
    values: dict[Path, dict[int | None, Any]] = {}
    for name, row in rows.items():
        value = rule(name)
        if values.setdefault(row.path, {}).setdefault(row.index, value) != value:
            raise UserError(f"{name}: is one tensor with its neighbours; they cannot be parted")
    return {path: np.array(in_order(entries)) for path, entries in values.items()}


def in_order(entries: Mapping[int | None, Any]) -> Any:
    """Values by index in a stack as a list; a value without an index as it is."""
    stack = {i: value for i, value in entries.items() if i is not None}
    return [stack[i] for i in sorted(stack)] if stack else entries[None]


def matching(rows: Rows, patterns: Sequence[str], option: str) -> set[str]:
    """Return the names of the tensors that match any of the regular expressions.

    Args:
        rows: the tensors of a model.
        patterns: regular expressions that may match anywhere in a name.
        option: the option's name in error messages.

    Raises:
        UserError: an invalid expression, or one that matches no name.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            matches = {name for name in rows if re.search(pattern, name)}
        except re.error as error:
            raise UserError(f"{option} {pattern!r}: not a regular expression ({error})") from None
        if not matches:
            near = did_you_mean(pattern, {re.sub(r"\d+", "0", name) for name in rows})
            raise UserError(f"{option} {pattern!r}: matches no tensor; {near}")
        chosen |= matches
    return chosen


def depth(config: ModernBertConfig, name: str) -> int:
    """Return a tensor's depth: 0 for embeddings, i + 1 for layer i, one more for all the rest."""
    if ".embeddings." in f".{name}":
        return 0
    layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return int(layer[1]) + 1 if layer else config.num_hidden_layers + 1
