"""What is exported of a model: a function of its weights and packed rows, for a platform."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from modernbert_jax import platform as platforms
from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.convert import Checkpoint
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import HEADS
from modernbert_jax.inference import shapes
from modernbert_jax.inference.in_flight import Level
from modernbert_jax.inference.runner import BatchRunner
from modernbert_jax.packing import Rows
from modernbert_jax.pipeline import reranker_activation
from modernbert_jax.quantization import Int8
from modernbert_jax.sharding import MeshShape

Platform = Literal["cpu", "cuda", "tpu"]

DEVICES: Mapping[Platform, str] = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
"""Platforms by the names that jax gives their devices."""

SCALES = ".scales"
"""Ending of the name of an int8 matrix's scales in the weights."""

MULTIPLE = 128
"""Divisor of the length of rows where the length is open."""

SHORTEST = 256
"""Shortest row where the length is open, in tokens: that of a visit of the portable attention."""

OPEN_SHAPE = f"b, {MULTIPLE}*n"

_ATTENTION: Mapping[Platform, tuple[str, str]] = {
    "cpu": ("xla_range", "xla_range"),
    "cuda": ("xla_range", "two_block"),
    "tpu": ("xla_range", "two_block"),
}
"""Implementations of attention over documents and over windows: those in plain XLA, of which
`attention.choice.PREFERENCE` has the same order."""


class Shape(NamedTuple):
    """A fixed shape of packed rows."""

    rows: int
    length: int
    """Tokens of a row."""

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """A shape from ROWSxLENGTH. Raises `UserError` for anything else."""
        match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,6})", text)
        if not match:
            raise UserError(f"shape {text!r}; it must be ROWSxLENGTH, such as 8x512")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.rows}x{self.length}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exportable:
    """A computation of a model, before it is lowered for a platform."""

    runner: BatchRunner
    name: str
    """A key of `BatchRunner.programs`."""
    options: Mapping[str, Any]
    """Options of the program."""
    extra: tuple[str, ...] = ()
    """Inputs after the rows: "visible" where tokens can be hidden from others, "skip" where a
    prompt is not pooled."""
    width: int | None = None
    """Number of the first numbers of a vector that are kept; None keeps all."""
    activation: Callable[[jax.Array], jax.Array] | None = None
    """Activation of scores."""

    @property
    def level(self) -> Level:
        """Whether the result has a vector for each document or each token."""
        return self.runner.programs[self.name].level

    @property
    def sparse(self) -> bool:
        """Whether the result is one of weights of the vocabulary's ids."""
        return self.runner.programs[self.name].sparse

    def __call__(
        self,
        weights: Mapping[str, jax.Array],
        token_ids: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *extra: jax.Array,
    ) -> jax.Array:
        """The result for packed rows: float32 [B, 64, ...] or [B, T, ...]."""
        more = dict(zip(self.extra, extra, strict=True))
        rows = Rows(token_ids, segment_ids, positions)
        options = {**self.options, **({"segments": shapes.DOCUMENTS} if self.sparse else {})}
        compute = self.runner.programs[self.name].compute
        return self.finished(compute(nested(weights), rows, **more, **options))

    def finished(self, values: jax.typing.ArrayLike) -> jax.Array:
        """What follows the program: results of the library's methods."""
        values = jnp.asarray(values, jnp.float32)[..., : self.width]
        return self.activation(values) if self.activation else values

    def arguments(self, shape: Shape | None) -> list[jax.ShapeDtypeStruct]:
        """Types of the inputs after the weights; None leaves rows and length open."""
        if shape is None:
            smallest = [f"n >= {SHORTEST // MULTIPLE}"]
            rows = export.symbolic_shape(OPEN_SHAPE, constraints=smallest)
        else:
            rows = tuple(shape)
        types = {"visible": ((*rows,), np.bool_), "skip": ((), np.int32)}
        return [
            *(jax.ShapeDtypeStruct(rows, np.int32) for _ in Rows._fields),
            *(jax.ShapeDtypeStruct(*types[name]) for name in self.extra),
        ]


def attention_on(platform: Platform) -> dict[str, str]:
    """Implementations of attention in a program for a platform, by kind of layer."""
    return dict(zip(("full", "sliding"), _ATTENTION[platform], strict=True))


def exportable(
    checkpoint: Checkpoint, platform: Platform, dtype: Dtype, name: str | None = None
) -> Exportable:
    """The computation of a checkpoint for a platform.

    Args:
        checkpoint: the model; its parameters are not read.
        platform: where the program will run; it need not be attached.
        dtype: of the computation.
        name: a key of `BatchRunner.programs`; None is what the model is for.

    Raises:
        UserError: a program that the model does not have.
    """
    attention = attention_on(platform)
    runtime = Runtime(
        dtype=dtype, attention=attention["full"], sliding_attention=attention["sliding"]
    )
    pipeline, runner = checkpoint.pipeline, runner_of(checkpoint, runtime)
    own = _own(checkpoint, runner)
    name = name or own
    if name not in runner.programs:
        raise UserError(f"the model has no program {name!r}; {did_you_mean(name, runner.programs)}")
    width = runner.programs[name].width
    kept = pipeline.truncate_dim if pipeline and name == own == "vectors" else None
    options: dict[str, Any] = {"how": "mean"} if name == "pooled" else {}
    extra: tuple[str, ...] = ()
    if name == "sparse" and pipeline:
        count = pipeline.max_active_dims
        options = {"count": count if count and count < width else None}
    elif name == "vectors" and pipeline and pipeline.late:
        hides = pipeline.late.expansion != "none" and not pipeline.late.attend
        extra = ("visible",) if hides else ()
    elif name == "vectors" and pipeline and pipeline.pooling:
        extra = () if pipeline.pooling.include_prompt else ("skip",)
    activation = None
    if name == own and ((pipeline and pipeline.kind == "reranker") or name == "document_logits"):
        named = pipeline.activation if pipeline else None
        choices = HEADS[checkpoint.head].output == "choice"
        activation = None if choices else reranker_activation(named, width)
    return Exportable(
        runner=runner,
        name=name,
        options=options,
        extra=extra,
        width=kept,
        activation=activation,
    )


def runner_of(checkpoint: Checkpoint, runtime: Runtime) -> BatchRunner:
    """The runner of a checkpoint on one device."""
    mesh = MeshShape().make(jax.devices()[:1])
    head, labels = checkpoint.head, checkpoint.labels
    return BatchRunner(checkpoint.config, runtime, head, labels, checkpoint.pipeline, mesh)


def _own(checkpoint: Checkpoint, runner: BatchRunner) -> str:
    """Name of the program that computes what a model is for."""
    pipeline, output = checkpoint.pipeline, HEADS[checkpoint.head].output
    if pipeline and pipeline.splade:
        return "sparse"
    if pipeline and pipeline.steps and "vectors" in runner.programs:
        return "vectors" if pipeline.late or pipeline.pooling else "pooled"
    if output in ("document", "choice"):
        return "document_logits"
    return "hidden" if output == "hidden" else "logits"


def lowered(
    program: Exportable,
    weights: Mapping[str, jax.ShapeDtypeStruct],
    platform: Platform,
    shape: Shape | None,
) -> export.Exported:
    """A program for a platform, which need not be attached, and a shape or any shape.

    Raises:
        UserError: a sparse model without a fixed shape.
    """
    if shape is None and program.sparse:
        raise UserError("a sparse model needs fixed shapes: pass --shapes 8x512, for example")
    with platforms.traced_for(DEVICES[platform]):
        call = export.export(jax.jit(program.__call__), platforms=(platform,))
        return call(dict(weights), *program.arguments(shape))


def nested(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the modules take them, from weights by their path."""
    tree: dict[str, Any] = {}
    for name, value in weights.items():
        if name.endswith(SCALES):
            continue
        *above, last = name.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        scales = weights.get(name + SCALES)
        node[last] = value if scales is None else Int8(value, scales)
    return tree
