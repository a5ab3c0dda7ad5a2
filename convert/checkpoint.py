"""What every format is read into and written from."""

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

from . import lazy, modules, names

LABELS = 10**8
"""The most outputs of a classifier."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the tensors were stored where they came from, so that they can be stored so again."""

    prefix: str = names.PREFIX
    """What the encoder's tensors are named with in front of a head; some files have nothing."""
    decoder_copy: bool = False
    """Whether a tied `decoder.weight` is written beside the embedding that it equals."""
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The dtype of each foreign tensor where it is not that of the parameter it lies in."""
    dtype: str | None = None
    """What `config.json` says, which need not be so; None writes the widest that there is."""

    def __post_init__(self):
        dtypes = self.dtypes
        known = isinstance(dtypes, Mapping) and {*dtypes.values()} <= {*DTYPES, "float64"}
        if self.prefix not in ("", names.PREFIX) or type(self.decoder_copy) is not bool:
            raise UserError(
                f"layout has prefix {self.prefix!r}, decoder_copy {self.decoder_copy!r}"
            )
        if not known or not isinstance(self.dtype, str | None):
            raise UserError("layout has dtypes that are none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model at rest: its arrays, the bytes of its tokenizer, and no device."""

    config: ModernBertConfig
    params: names.Params
    """In the layout of the module: `MaskedLM`, `CausalLM`, `Classifier` or `Encoder`; with dense
    layers behind an `Encoder` {"encoder", "dense_0", ...}. The dtypes are those of the file.
    Leaves are numpy arrays, or `Lazy` ones that are still in their file; `loaded` reads them."""
    head: str = "masked_lm"
    """A key of `names.heads(config)`."""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """The tokenizer's files, those of `modules`, and the like, carried through byte for byte; by
    their paths in the directory."""
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keys of `config.json` that mean nothing to the model: `id2label`, prompts, ..."""
    layout: Layout = Layout()

    def __post_init__(self):
        if self.head not in (known := names.heads(self.config)):
            raise UserError(f"head is {self.head!r}; {did_you_mean(self.head, known)}")
        params: names.Params = {}
        for path, leaf in names.flatten(self.params).items():
            names.put(params, path, leaf if isinstance(leaf, lazy.Lazy) else np.asarray(leaf))
        object.__setattr__(self, "params", params)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """From `files`, when first asked for. Raises `UserError` if they are damaged."""
        return Tokenizer.from_files(self.files) if "tokenizer.json" in self.files else None

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """What follows the model, where `files` say so. Raises `UserError` if they are damaged."""
        return modules.read(self.files, self.extra)

    def rows(self, prefix: str = names.PREFIX) -> dict[str, names.Row]:
        """The table of names of this checkpoint."""
        projections = self.pipeline.projections if self.pipeline else ()
        return names.table(self.config, self.head, self.labels, prefix, projections)

    @property
    def labels(self) -> int:
        """Outputs of the classifier, as transformers counts them."""
        return labels(self.head, self.extra)

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in names.flatten(self.params).values())

    @property
    def nbytes(self) -> int:
        """What the parameters take in memory, in bytes."""
        return sum(leaf.nbytes for leaf in names.flatten(self.params).values())

    @property
    def dtype(self) -> str:
        """The type of the parameters; the widest, where they differ."""
        leaves = names.flatten(self.params).values()
        return names.common_dtype(leaf.dtype for leaf in leaves).name


def labels(head: str, config: Mapping[str, Any]) -> int:
    """Number of a classifier's outputs from the keys of a `config.json`."""
    if head == "multiple_choice":
        return 1
    named = config.get("id2label")
    if isinstance(named, Mapping) and named:
        return len(named)
    given = config.get("num_labels", 2)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given <= LABELS:
        raise UserError(f"config.json: num_labels is {given!r}; it must be 1 or more")
    return given


def loaded(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with every leaf in memory."""
    params: names.Params = {}
    for path, leaf in names.flatten(checkpoint.params).items():
        names.put(params, path, np.ascontiguousarray(leaf))
    return dataclasses.replace(checkpoint, params=params)


def cast(checkpoint: Checkpoint, dtype: str) -> Checkpoint:
    """The checkpoint with every tensor in this dtype. What is lazy is cast when it is read.

    Raises:
        UserError: another dtype than `DTYPES`, or values that float16 would turn into infinity.
            Lazy leaves raise it when they are read, with the names of all.
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
    """Whether a finite number became infinite."""
    return not np.isfinite(new).all() and bool((np.isinf(new) & np.isfinite(x)).any())
