"""What follows the model in an embedding model, a reranker or a late-interaction model.

The modules are those of sentence-transformers and PyLate: pooling, dense layers, normalisation;
with them go prompts and lengths. `convert.module_pipeline` reads them from files.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import pool

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "torch.nn.modules.activation.GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "torch.nn.modules.activation.ReLU": jax.nn.relu,
    "torch.nn.modules.activation.SiLU": jax.nn.silu,
    "torch.nn.modules.activation.Sigmoid": jax.nn.sigmoid,
    "torch.nn.modules.activation.Tanh": jnp.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
}
"""By the name under which the files have them."""

Kind = Literal["embedding", "reranker", "late-interaction"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooling:
    """From tokens to one vector; several ways are joined end to end."""

    modes: tuple[str, ...]
    include_prompt: bool = True
    """False leaves the tokens of the prompt out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense:
    """A linear layer with an activation, on vectors or on every token."""

    name: str
    """Of its parameters: {"linear": {"kernel", "bias"}, "residual": {"kernel"}}."""
    path: str
    """Of its folder."""
    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "torch.nn.modules.activation.Tanh"
    residual: bool = False
    """Adds the input, by a projection where the widths differ."""

    def __call__(self, x: jax.Array, params: Mapping[str, Any]) -> jax.Array:
        """x [..., in_features] to [..., out_features], in float32."""
        linear = params[self.name]["linear"]
        y = x @ linear["kernel"] + (linear["bias"] if self.bias else 0.0)
        y = ACTIVATIONS[self.activation](y)
        if self.residual and self.in_features != self.out_features:
            x = x @ params[self.name]["residual"]["kernel"]
        return y + x if self.residual else y


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Scales vectors to length 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LateInteraction:
    """How queries and documents become tokens whose vectors are compared one by one."""

    query_prefix: str = ""
    document_prefix: str = ""
    query_length: int | None = None
    """In tokens, the prefix included; None is the longest input."""
    document_length: int | None = None
    expand: bool = False
    """Fills queries up to `query_length` with mask tokens, whose vectors count."""
    attend: bool = False
    """Whether the other tokens see those."""
    skiplist: tuple[str, ...] = ()
    """Tokens of documents that are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The modules behind the transformer, and how texts go in."""

    kind: Kind
    steps: tuple[Pooling | Dense | Normalize, ...] = ()
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None
    """The name of the one that every text gets where none is asked for."""
    similarity: str | None = None
    max_length: int | None = None
    lower_case: bool = False
    late: LateInteraction | None = None
    activation: str | None = None
    """Of a reranker's scores."""

    @property
    def projections(self) -> tuple[Dense, ...]:
        """The layers that have parameters."""
        return tuple(step for step in self.steps if isinstance(step, Dense))

    @property
    def pooling(self) -> Pooling | None:
        """How tokens become a vector; None where they do not."""
        return next((step for step in self.steps if isinstance(step, Pooling)), None)

    def __call__(
        self,
        hidden: jax.Array,
        segment_ids: jax.Array,
        segments: int,
        params: Mapping[str, Any],
        *,
        skip: int | jax.Array = 0,
        normalize: bool = True,
    ) -> jax.Array:
        """All steps in float32: documents' vectors [B, segments, E], or tokens' [B, T, E].

        Args:
            hidden: the model's hidden states [B, T, D].
            segment_ids: int32 [B, T]; 0 is padding.
            segments: the largest segment id that can occur.
            params: of the dense layers, by their names.
            skip: length of the prompt in tokens, for pooling that leaves it out.
            normalize: False leaves out the steps that normalise.
        """
        x = hidden.astype(jnp.float32)
        for step in self.steps:
            if isinstance(step, Dense):
                x = step(x, params)
            elif isinstance(step, Normalize) and normalize:
                x /= jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)  # PyTorch's
            elif isinstance(step, Pooling):
                left_out = 0 if step.include_prompt else skip
                found = [pool(x, segment_ids, segments, mode, left_out) for mode in step.modes]
                x = jnp.concatenate(found, axis=-1)
        return x

    def prompt(self, name: str | None) -> str:
        """The prompt of a name, or the default one. Raises `UserError`."""
        name = self.default_prompt if name is None else name
        if name is not None and name not in self.prompts:
            raise UserError(f"prompt_name is {name!r}; {did_you_mean(name, self.prompts)}")
        return "" if name is None else self.prompts[name]


def reranker_activation(name: str | None, labels: int) -> Callable[[jax.Array], jax.Array]:
    """What a cross-encoder's logits go through. Raises `UserError` for an unknown name."""
    if name is None:
        name = "torch.nn.modules." + ("activation.Sigmoid" if labels == 1 else "linear.Identity")
    if name not in ACTIVATIONS:
        raise UserError(f"activation is {name!r}; {did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
