"""`Checkpoint`, which every format is read into and written from."""

import dataclasses
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.tokenizer import Tokenizer

from . import lazy, module_pipeline, names
from .name_rows import Row

MAX_LABELS = 10**8
"""Largest number of outputs of a classifier."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Details of how the source stored its tensors, so that they can be stored in the same way."""

    prefix: str = names.PREFIX
    """Beginning of the names of the encoder's tensors; empty in some files."""
    decoder_copy: bool = False
    """True if a tied `decoder.weight` is stored in addition to the equal embedding."""
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Dtypes of foreign tensors that differ from that of the parameter which holds them."""
    dtype: str | None = None
    """Dtype that `config.json` declares, which may be wrong; None declares the widest."""

    def __post_init__(self) -> None:
        dtypes = self.dtypes
        known = isinstance(dtypes, Mapping) and {*dtypes.values()} <= {*DTYPES, "float64"}
        if self.prefix not in ("", names.PREFIX) or type(self.decoder_copy) is not bool:
            raise UserError(
                f"layout has prefix {self.prefix!r}, decoder_copy {self.decoder_copy!r}"
            )
        if not known or not isinstance(self.dtype, str | None):
            raise UserError("layout has dtypes that do not exist")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in host memory or in its files: config, arrays, tokenizer and other small files."""

    config: ModernBertConfig
    params: names.Params
    """Parameters in the layout of the module: `MaskedLM`, `CausalLM`, `Classifier` or `Encoder`;
    with layers after an `Encoder` {"encoder", "dense_0", ...}. The dtypes are those of the file.
    Leaves are numpy arrays, or `Lazy` ones that are still in their file."""
    head: str = "masked_lm"
    """A key of `names.heads(config)`."""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """Contents by path of the tokenizer's files, of those about modules, and of similar ones;
    formats carry them byte for byte."""
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keys of `config.json` without a meaning for the architecture: `id2label`, prompts, ..."""
    layout: Layout = Layout()

    def __post_init__(self) -> None:
        if self.head not in (known := names.heads(self.config)):
            raise UserError(f"head is {self.head!r}; {did_you_mean(self.head, known)}")
        params: names.Params = {}
        for path, leaf in names.flatten(self.params).items():
            names.put(params, path, leaf if isinstance(leaf, lazy.Lazy) else np.asarray(leaf))
        object.__setattr__(self, "params", params)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """Tokenizer in `files`, or None. Raises `UserError` if they are damaged."""
        return Tokenizer(self.files) if "tokenizer.json" in self.files else None

    def need_tokenizer(self, name: str) -> Tokenizer:
        """The tokenizer. Raises `UserError`, in which the model has a name, if there is none."""
        if self.tokenizer is None:
            raise UserError(f"{name}: has no tokenizer.json; put the model's into the same folder")
        return self.tokenizer

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """Modules after the model, from `files`, or None. Raises `UserError` if damaged."""
        return module_pipeline.read(self.files, self.extra)

    def rows(self, prefix: str = names.PREFIX) -> dict[str, Row]:
        """The table of names of this checkpoint."""
        layers = self.pipeline.layers if self.pipeline else ()
        return names.table(self.config, self.head, self.labels, prefix, layers)

    @property
    def labels(self) -> int:
        """Number of outputs of a classifier, as transformers counts them."""
        return label_count(self.head, self.extra)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the outputs of a classifier, as transformers gives them."""
        return label_names(self.head, self.extra)

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in names.flatten(self.params).values())

    @property
    def nbytes(self) -> int:
        """Size of the parameters in memory, in bytes."""
        return sum(leaf.nbytes for leaf in names.flatten(self.params).values())

    @property
    def dtype(self) -> str:
        """Dtype of the parameters; the narrowest that holds all if they differ."""
        leaves = names.flatten(self.params).values()
        return names.common_dtype(leaf.dtype for leaf in leaves).name


def label_count(head: str, config: Mapping[str, Any]) -> int:
    """Number of outputs of a classifier according to the keys of a `config.json`.

    Without either of `id2label` and `num_labels` there are two, as in transformers.

    Raises:
        UserError: an `id2label` without the keys 0, 1, ..., no number of labels, or two.
    """
    if head == "multiple_choice":
        return 1
    by_id, count = config.get("id2label"), config.get("num_labels")
    if head in ("none", *names.LANGUAGE_MODELS):  # which have no such outputs
        return len(by_id) if by_id and isinstance(by_id, Mapping) else 2
    if by_id:
        named = len(_by_id(by_id))
        if count not in (None, named):
            raise UserError(
                f"config.json: num_labels is {count!r:.40}, and id2label has {named} labels;"
                " correct one of them"
            )
        return named
    count = 2 if count is None else count
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= MAX_LABELS:
        raise UserError(f"config.json: num_labels is {count!r}; it must be 1 or more")
    return count


def label_names(head: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a classifier's outputs, in order: LABEL_0, ... without an `id2label`."""
    if by_id := config.get("id2label"):
        names_ = _by_id(by_id)
        return tuple(names_[i] for i in range(len(names_)))
    return tuple(f"LABEL_{i}" for i in range(label_count(head, config)))


def _by_id(value: Any) -> dict[int, str]:
    """An `id2label` with numbers as keys. Raises `UserError` if they are not 0, 1, ..."""
    if not isinstance(value, Mapping):
        raise UserError(f"config.json: id2label is {value!r:.80}; it must map numbers to labels")
    keys = [int(k) if str(k).isdecimal() else -1 for k in value]
    if sorted(keys) != list(range(len(keys))):
        shown = ", ".join(str(key) for key in [*value][:6])
        raise UserError(
            f"config.json: id2label has the keys {shown:.80}; they must be all numbers from 0 to"
            f" {len(keys) - 1}, and the labels their values"
        )
    if wrong := [x for x in value.values() if not isinstance(x, str | int | float)]:
        raise UserError(f"config.json: id2label has the label {wrong[0]!r:.80}; it must be text")
    return {key: str(label) for key, label in zip(keys, value.values(), strict=True)}


def loaded(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with all parameters in memory."""
    params: names.Params = {}
    for path, leaf in names.flatten(checkpoint.params).items():
        names.put(params, path, np.ascontiguousarray(leaf))
    return dataclasses.replace(checkpoint, params=params)


def cast(checkpoint: Checkpoint, dtype: str) -> Checkpoint:
    """The checkpoint with all parameters in one dtype; lazy ones are cast when they are read.

    Raises:
        UserError: a dtype that is not in `DTYPES`, or values that become infinite in float16,
            with the names of all such parameters. Lazy parameters raise it when they are read.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; {did_you_mean(dtype, DTYPES)}")
    leaves = names.flatten(checkpoint.params)

    def narrowed(x: np.ndarray) -> np.ndarray:
        new = _astype(x, dtype)
        if _overflows(x, new):
            arrays = ((path, np.asarray(leaf)) for path, leaf in leaves.items())
            lost = ["/".join(path) for path, x in arrays if _overflows(x, _astype(x, dtype))]
            raise UserError(f"dtype {dtype} is too narrow for values of {', '.join(lost)}")
        return new

    params: names.Params = {}
    for path, leaf in leaves.items():
        later = isinstance(leaf, lazy.Lazy)
        names.put(params, path, leaf.each(narrowed, dtype) if later else narrowed(leaf))
    layout = dataclasses.replace(checkpoint.layout, dtypes={}, dtype=None)
    return dataclasses.replace(checkpoint, params=params, layout=layout)


def _astype(x: np.ndarray, dtype: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return x.astype(dtype, copy=False)


def _overflows(x: np.ndarray, new: np.ndarray) -> bool:
    """True if a finite number became infinite."""
    return not np.isfinite(new).all() and bool((np.isinf(new) & np.isfinite(x)).any())
