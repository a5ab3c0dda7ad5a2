"""The table of names: where each tensor of a Hugging Face checkpoint lies among our parameters.

A PyTorch weight is [out, in] and ours is [in, out]. Tensors that PyTorch stacks along their output
(the thirds of Wqkv, the halves of Wi) get an axis for it, and the layers of a scanned group share
one stack. The table is generated from a config and is the only place that knows both sides.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import Dense

from . import lazy

HEADS = {
    "none": "ModernBertModel",
    "masked_lm": "ModernBertForMaskedLM",
    "sequence_classification": "ModernBertForSequenceClassification",
    "token_classification": "ModernBertForTokenClassification",
    "question_answering": "ModernBertForQuestionAnswering",
    "multiple_choice": "ModernBertForMultipleChoice",
}
"""Our name of a head, and the class of transformers that has it."""

DECODER_HEADS = {
    "none": "ModernBertDecoderModel",
    "causal_lm": "ModernBertDecoderForCausalLM",
    "sequence_classification": "ModernBertDecoderForSequenceClassification",
}
"""The same of causal models."""

LANGUAGE_MODELS = ("masked_lm", "causal_lm")
"""Heads that end in the vocabulary; the others, but for none, end in a classifier."""

TOKEN_TABLE = "embeddings.tok_embeddings.weight"
PREFIX = "model."
Params = dict[str, Any]
Array = np.ndarray | lazy.Lazy


class Transform(NamedTuple):
    """How a foreign array becomes ours; both directions are exact."""

    parts: int | None = None
    """The outputs are this many tensors on end; ours has an axis for them."""
    transpose: bool = False

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        if self.parts:
            x = x.reshape(self.parts, x.shape[0] // self.parts, *x.shape[1:])
        return x.swapaxes(-1, -2) if self.transpose else x

    def to_foreign(self, x: np.ndarray) -> np.ndarray:
        x = x.swapaxes(-1, -2) if self.transpose else x
        return x.reshape(-1, *x.shape[2:]) if self.parts else x


class Row(NamedTuple):
    """One foreign tensor: its shape, and where and how it lies among our parameters."""

    shape: tuple[int, ...]
    path: tuple[str, ...]
    index: int | None
    """Its place in the stack at `path`; None where it is stored alone."""
    transform: Transform
    part: int | None = None
    """Which of the parts that lie on an axis of their own it is, where it is only one of them."""


def heads(config: ModernBertConfig) -> dict[str, str]:
    """The heads that a model of this kind can have, with their classes in transformers."""
    return DECODER_HEADS if config.causal else HEADS


def table(
    config: ModernBertConfig,
    head: str,
    labels: int = 2,
    prefix: str = PREFIX,
    projections: Sequence[Dense] = (),
) -> dict[str, Row]:
    """A row for every tensor of a checkpoint; every parameter is covered exactly once.

    Args:
        config: the architecture.
        head: a key of `heads(config)`.
        labels: outputs of a classifier.
        prefix: what the names of the encoder's tensors begin with, if anything.
        projections: dense layers behind the model. Their tensors lie in files of their own, and
            the folder is part of their name.
    """
    encoder = () if head == "none" and not projections else ("encoder",)
    rows = {
        prefix + name: row._replace(path=(*encoder, *row.path))
        for name, row in _encoder(config).items()
    }
    if head in LANGUAGE_MODELS:
        rows |= _language_model(config, "lm_head" if config.causal else "head")
    elif head != "none":
        bias = config.classifier_bias or not config.causal
        rows |= _prediction(config, "head")
        rows |= _linear("classifier", ("classifier",), config.hidden_size, labels, bias)
    for dense in projections:
        rows |= _dense(dense)
    return rows


def _encoder(config: ModernBertConfig) -> dict[str, Row]:
    v, d = config.vocab_size, config.hidden_size
    table = Row((v, d), ("embeddings", "embedding"), None, Transform())
    rows = {TOKEN_TABLE: table, **_norm(config, "embeddings.norm", ("embeddings", "norm"))}
    for i in range(config.num_hidden_layers):
        rows |= _layer(config, i)
    return rows | _norm(config, "final_norm", ("final_norm",))


def _layer(config: ModernBertConfig, i: int) -> dict[str, Row]:
    d, f, (path, index) = config.hidden_size, config.intermediate_size, config.locate(i)
    attention, mlp = config.attention_bias, config.mlp_bias
    rows = _norm(config, "attn_norm", (*path, "attn_norm")) if i else {}
    qkv = (*path, "attn", "Wqkv")
    if config.causal:
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            third = _linear(f"attn.{name}", qkv, d, d, attention)
            rows |= {name: row._replace(part=part) for name, row in third.items()}
    else:
        rows |= _linear("attn.Wqkv", qkv, d, 3 * d, attention, parts=3)
    rows |= _linear("attn.Wo", (*path, "attn", "Wo"), d, d, attention)
    rows |= _norm(config, "mlp_norm", (*path, "mlp_norm"))
    rows |= _linear("mlp.Wi", (*path, "mlp", "Wi"), d, 2 * f, mlp, parts=2)
    rows |= _linear("mlp.Wo", (*path, "mlp", "Wo"), f, d, mlp)
    return {f"layers.{i}.{name}": row._replace(index=index) for name, row in rows.items()}


def _prediction(config: ModernBertConfig, name: str) -> dict[str, Row]:
    d = config.hidden_size
    rows = _linear(f"{name}.dense", ("head", "dense"), d, d, config.classifier_bias)
    return rows | _norm(config, f"{name}.norm", ("head", "norm"))


def _language_model(config: ModernBertConfig, head: str) -> dict[str, Row]:
    v, d = config.vocab_size, config.hidden_size
    rows = _prediction(config, head)
    if not config.tie_word_embeddings:
        rows |= _linear("decoder", ("decoder", "linear"), d, v, bias=False)
    if config.decoder_bias:
        rows["decoder.bias"] = Row((v,), ("decoder", "bias"), None, Transform())
    return rows


def _dense(dense: Dense) -> dict[str, Row]:
    where, d, e = dense.name, dense.in_features, dense.out_features
    rows = _linear("linear", (where, "linear"), d, e, dense.bias)
    if dense.residual and d != e:
        rows |= _linear("residual", (where, "residual"), d, e, bias=False)
    return {f"{dense.path}/{name}": row for name, row in rows.items()}


def _linear(
    name: str,
    path: tuple[str, ...],
    inputs: int,
    outputs: int,
    bias: bool,
    parts: int | None = None,
) -> dict[str, Row]:
    kernel = Row((outputs, inputs), (*path, "kernel"), None, Transform(parts, transpose=True))
    rows = {f"{name}.weight": kernel}
    if bias:
        rows[f"{name}.bias"] = Row((outputs,), (*path, "bias"), None, Transform(parts))
    return rows


def _norm(config: ModernBertConfig, name: str, path: tuple[str, ...]) -> dict[str, Row]:
    rows = {f"{name}.weight": Row((config.hidden_size,), (*path, "scale"), None, Transform())}
    if config.norm_bias:
        rows[f"{name}.bias"] = Row((config.hidden_size,), (*path, "bias"), None, Transform())
    return rows


def shapes(rows: Mapping[str, Row]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shape of every parameter, by path: the tree that the module's `init` would make."""
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for row in rows.values():
        # No memory is touched: a transform of a broadcast zero is a view.
        shape = row.transform.to_ours(np.broadcast_to(np.float32(0), row.shape)).shape
        # The last member of a stack decides how high it is.
        heights = (i + 1 for i in (row.index, row.part) if i is not None)
        found[row.path] = (*heights, *shape)
    return found


def to_params(tensors: Mapping[str, Array], rows: Mapping[str, Row], origin: str) -> Params:
    """Our parameters from foreign tensors: a nested dict of arrays, lazy where those are.

    A stack of tensors of several dtypes gets one that holds them all exactly.

    Raises:
        UserError: one message with every tensor that is missing, unexpected or of another shape.
    """
    check({n: x.shape for n, x in tensors.items()}, {n: r.shape for n, r in rows.items()}, origin)
    members: dict[tuple[str, ...], dict[int | None, dict[int | None, Array]]] = {}
    for name, row in rows.items():
        ours = lazy.rearranged(tensors[name], row.transform.to_ours)
        members.setdefault(row.path, {}).setdefault(row.index, {})[row.part] = ours
    params: Params = {}
    for path, stack in members.items():
        array = _stacked({index: _stacked(parts) for index, parts in stack.items()})
        later = any(isinstance(x, lazy.Lazy) for parts in stack.values() for x in parts.values())
        put(params, path, array if later else np.ascontiguousarray(array))
    return params


def _stacked(members: Mapping[int | None, Array]) -> Array:
    """The members of a stack on a new first axis; a single one as it is."""
    if None in members:
        return members[None]
    dtype = common_dtype(x.dtype for x in members.values())
    return lazy.Stack([members[i] for i in range(len(members))], dtype)


def to_tensors(params: Params, rows: Mapping[str, Row]) -> dict[str, Array]:
    """The foreign tensors of parameters, contiguous; lazy where those are.

    Raises `UserError` as `to_params` does.
    """
    check_params(params, rows, "parameters")
    tensors = {}
    for name, row in rows.items():
        array = leaf(params, row.path)
        array = array if row.index is None else array[row.index]
        array = array if row.part is None else array[row.part]
        foreign = lazy.rearranged(array, row.transform.to_foreign)
        later = isinstance(foreign, lazy.Lazy)
        tensors[name] = foreign if later else np.ascontiguousarray(foreign)
    return tensors


def check_params(params: Params, rows: Mapping[str, Row], origin: Any) -> None:
    """Raises one `UserError` for all leaves, of any kind that has a shape, that do not fit."""
    found = {"/".join(path): x.shape for path, x in flatten(params).items()}
    check(found, {"/".join(path): s for path, s in shapes(rows).items()}, origin)


def check(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], origin: Any
) -> None:
    """Raises one `UserError` for all differences between names and shapes."""
    problems = []
    if missing := [f"{n} {list(expected[n])}" for n in expected if n not in found]:
        problems.append(f"missing {_some(missing)}")
    if unexpected := [f"{n} {list(found[n])}" for n in found if n not in expected]:
        problems.append(f"unexpected {_some(unexpected)}")
    if other := [
        f"{n} {list(found[n])} instead of {list(expected[n])}"
        for n in expected
        if n in found and tuple(found[n]) != tuple(expected[n])
    ]:
        problems.append(f"of another shape {_some(other)}")
    if problems:
        raise UserError(f"{origin}: tensors do not fit the config: {'; '.join(problems)}")


def _some(names: list[str], most: int = 20) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def common_dtype(dtypes) -> np.dtype:
    """The narrowest float type that holds all of these exactly."""
    dtypes = {np.dtype(d) for d in dtypes}
    if len(dtypes) == 1:
        return dtypes.pop()
    return np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)


def flatten(params: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The leaves of a nested dict by path."""
    found = {}
    for key, value in params.items():
        inner = isinstance(value, Mapping)
        found |= flatten(value, (*path, key)) if inner else {(*path, key): value}
    return found


def leaf(params: Params, path: tuple[str, ...]) -> Any:
    """The leaf of a nested dict at a path."""
    for key in path:
        params = params[key]
    return params


def put(params: Params, path: tuple[str, ...], value: Any) -> None:
    """Sets a leaf of a nested dict, with the dicts above it."""
    for key in path[:-1]:
        params = params.setdefault(key, {})
    params[path[-1]] = value
