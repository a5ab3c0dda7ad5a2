"""The table of names, the only place that knows foreign tensors and our parameters.

PyTorch weights are [out, in] and ours are [in, out]. Tensors that PyTorch stacks along their
outputs (the thirds of Wqkv, the halves of Wi) get an axis of their own. The layers of a scanned
group share one stack. The table is generated from a config; `name_rows` generates its parts.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import Layer

from . import lazy, name_rows
from .name_rows import ParameterPath, Row

HEADS = {
    "none": "ModernBertModel",
    "masked_lm": "ModernBertForMaskedLM",
    "sequence_classification": "ModernBertForSequenceClassification",
    "token_classification": "ModernBertForTokenClassification",
    "question_answering": "ModernBertForQuestionAnswering",
    "multiple_choice": "ModernBertForMultipleChoice",
}
"""Heads of encoders: our name, and the class of transformers."""

DECODER_HEADS = {
    "none": "ModernBertDecoderModel",
    "causal_lm": "ModernBertDecoderForCausalLM",
    "sequence_classification": "ModernBertDecoderForSequenceClassification",
}
"""Heads of causal models: our name, and the class of transformers."""

LANGUAGE_MODELS = ("masked_lm", "causal_lm")
"""Heads whose outputs are the vocabulary; all others but "none" end in a classifier."""

PREFIX = "model."
"""Beginning of the names of an encoder's tensors in front of a head."""

Params = dict[str, Any]
"""A nested dict of arrays, in memory or lazy."""


def heads(config: ModernBertConfig) -> dict[str, str]:
    """Heads that a model with this config can have, with their classes in transformers."""
    return DECODER_HEADS if config.causal else HEADS


def table(
    config: ModernBertConfig,
    head: str,
    labels: int = 2,
    prefix: str = PREFIX,
    layers: Sequence[Layer] = (),
) -> dict[str, Row]:
    """A row for every tensor of a checkpoint, by foreign name; covers every parameter once.

    Args:
        config: the architecture.
        head: a key of `heads(config)`.
        labels: number of outputs of a classifier.
        prefix: beginning of the names of the encoder's tensors.
        layers: layers of modules after the model. Their tensors are in files of their own, and the
            folder is part of their name.
    """
    outer = () if head == "none" and not layers else ("encoder",)
    entries = {
        prefix + name: dataclasses.replace(row, path=(*outer, *row.path))
        for name, row in name_rows.encoder(config).items()
    }
    if head in LANGUAGE_MODELS:
        entries |= name_rows.language_model(config)
    elif head != "none":
        entries |= name_rows.classifier(config, labels)
    for layer in layers:
        entries |= name_rows.layer(layer)
    return entries


def shapes(rows: Mapping[str, Row]) -> dict[ParameterPath, tuple[int, ...]]:
    """The shape of every parameter by path, as the module's `init` would create it."""
    by_path: dict[ParameterPath, tuple[int, ...]] = {}
    for row in rows.values():
        # A transform of a broadcast zero is a view and takes no memory.
        shape = row.transform.to_ours(np.broadcast_to(np.float32(0), row.shape)).shape
        # The last member of a stack determines its height.
        heights = (i + 1 for i in (row.index, row.part) if i is not None)
        by_path[row.path] = (*heights, *shape)
    return by_path


def to_params(tensors: Mapping[str, lazy.Array], rows: Mapping[str, Row], origin: str) -> Params:
    """Convert foreign tensors to our parameters, lazy if the tensors are.

    A stack of tensors of several dtypes gets one that holds them all exactly.

    Raises:
        UserError: one message with every missing, unexpected or mis-shaped tensor.
    """
    check({n: x.shape for n, x in tensors.items()}, {n: r.shape for n, r in rows.items()}, origin)
    members: dict[ParameterPath, dict[int | None, dict[int | None, lazy.Array]]] = {}
    for name, row in rows.items():
        ours = lazy.rearranged(tensors[name], row.transform.to_ours)
        members.setdefault(row.path, {}).setdefault(row.index, {})[row.part] = ours
    params: Params = {}
    for path, stack in members.items():
        array = _stacked({index: _stacked(parts) for index, parts in stack.items()})
        later = any(isinstance(x, lazy.Lazy) for parts in stack.values() for x in parts.values())
        put(params, path, array if later else np.ascontiguousarray(array))
    return params


def _stacked(members: Mapping[int | None, lazy.Array]) -> lazy.Array:
    """The members on a new first axis; a single one, with index None, as it is."""
    if None in members:
        return members[None]
    dtype = common_dtype(x.dtype for x in members.values())
    return lazy.Stack([members[i] for i in range(len(members))], dtype)


def to_tensors(params: Params, rows: Mapping[str, Row]) -> dict[str, lazy.Array]:
    """Convert our parameters to foreign tensors, contiguous, or lazy if the parameters are.

    Raises:
        UserError: one message with every missing, unexpected or mis-shaped parameter.
    """
    check_params(params, rows, "parameters")
    tensors: dict[str, lazy.Array] = {}
    for name, row in rows.items():
        array = leaf(params, row.path)
        array = array if row.index is None else array[row.index]
        array = array if row.part is None else array[row.part]
        foreign = lazy.rearranged(array, row.transform.to_foreign)
        later = isinstance(foreign, lazy.Lazy)
        tensors[name] = foreign if later else np.ascontiguousarray(foreign)
    return tensors


def check_params(params: Params, rows: Mapping[str, Row], origin: Any) -> None:
    """Raise one `UserError` for all leaves, of any type with a shape, that do not fit the rows."""
    actual = {"/".join(path): x.shape for path, x in flatten(params).items()}
    check(actual, {"/".join(path): s for path, s in shapes(rows).items()}, origin)


def check(
    actual: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], origin: Any
) -> None:
    """Raise one `UserError` for all differences between names and shapes."""
    problems = []
    if missing := [f"{n} {list(expected[n])}" for n in expected if n not in actual]:
        problems.append(f"missing {_shortened(missing)}")
    if unexpected := [f"{n} {list(actual[n])}" for n in actual if n not in expected]:
        problems.append(f"unexpected {_shortened(unexpected)}")
    if other := [
        f"{n} {list(actual[n])} instead of {list(expected[n])}"
        for n in expected
        if n in actual and tuple(actual[n]) != tuple(expected[n])
    ]:
        problems.append(f"of another shape {_shortened(other)}")
    if problems:
        raise UserError(f"{origin}: tensors do not fit the config: {'; '.join(problems)}")


def _shortened(names: list[str], most: int = 20) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def common_dtype(dtypes: Iterable[DTypeLike]) -> np.dtype:
    """The narrowest float dtype that holds values of all of these exactly."""
    distinct = {np.dtype(d) for d in dtypes}
    if len(distinct) == 1:
        return distinct.pop()
    return np.dtype(np.float64 if np.dtype(np.float64) in distinct else np.float32)


def flatten(params: Mapping[str, Any], path: ParameterPath = ()) -> dict[ParameterPath, Any]:
    """The leaves of a nested dict by path."""
    leaves: dict[ParameterPath, Any] = {}
    for key, value in params.items():
        inner = isinstance(value, Mapping)
        leaves |= flatten(value, (*path, key)) if inner else {(*path, key): value}
    return leaves


def leaf(params: Params, path: ParameterPath) -> Any:
    """The leaf of a nested dict at a path."""
    for key in path:
        params = params[key]
    return params


def put(params: Params, path: ParameterPath, value: Any) -> None:
    """Set a leaf of a nested dict, creating the dicts above it."""
    for key in path[:-1]:
        params = params.setdefault(key, {})
    params[path[-1]] = value
