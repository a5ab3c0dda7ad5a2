"""Modules after the model in embedding, reranking, sparse and late-interaction models.

They are those of sentence-transformers and PyLate: pooling, dense layers and norms, with prompts
and lengths. `Pipeline` describes them as `convert.module_pipeline` reads them from files;
`embedder.Embedder` computes and trains them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError, did_you_mean

IDENTITY = "torch.nn.modules.linear.Identity"
"""Name of the activation that changes nothing."""

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "torch.nn.modules.activation.GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "torch.nn.modules.activation.ReLU": jax.nn.relu,
    "torch.nn.modules.activation.SiLU": jax.nn.silu,
    "torch.nn.modules.activation.Sigmoid": jax.nn.sigmoid,
    "torch.nn.modules.activation.Tanh": jnp.tanh,
    IDENTITY: lambda x: x,
}
"""Activation functions by their names in the files."""

Kind = Literal["embedding", "reranker", "late-interaction", "sparse"]

Expansion = Literal["none", "fixed", "min"]
"""Ways to fill up short queries of late interaction."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooling:
    """Pooling of a document's tokens into one vector."""

    modes: tuple[str, ...]
    """Ways of `heads.pool`, whose results are concatenated."""
    include_prompt: bool = True
    """Whether the tokens of the prompt are pooled, too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense:
    """A linear layer with an activation, on vectors or on every token."""

    name: str
    """Name of its parameters, {"linear": {"kernel", "bias"}, "residual": {"kernel"}}: `dense_0` is
    the first one in a pipeline."""
    path: str = ""
    """Path of its folder in the checkpoint; "" is the usual one, set by `convert.with_pipeline`."""
    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "torch.nn.modules.activation.Tanh"
    """A key of `ACTIVATIONS`."""
    residual: bool = False
    """Whether the input is added, after a projection where the widths differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """A learned norm over the numbers of a vector, as PyTorch's `LayerNorm` (Ba et al. 2016)."""

    name: str
    """Name of its parameters, {"scale", "bias"}: `layer_norm_0` is the first one in a pipeline."""
    path: str = ""
    """Path of its folder in the checkpoint; "" is the usual one, set by `convert.with_pipeline`."""
    dimension: int
    """Width of the vectors."""


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Division of vectors by their length."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpladePooling:
    """Pooling of the scores that a masked-LM head gives a document's tokens; see `splade`."""

    strategy: Literal["max", "sum"] = "max"
    """Whether a weight is that of the largest score, or the sum of the weights of all tokens."""
    activation: Literal["relu", "log1p_relu"] = "relu"
    """Weight of a score x: log(1 + relu(x)), or log(1 + log(1 + relu(x)))."""


Layer = Dense | LayerNorm
"""A step with parameters."""

Step = Pooling | Layer | Normalize | SpladePooling

LAYER_NORM_EPSILON = 1e-5
"""Added to the variance by a `LayerNorm`: PyTorch's default, which the files cannot change."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LateInteraction:
    """Settings of late interaction, in which texts are compared token by token."""

    query_prefix: str = ""
    document_prefix: str = ""
    query_length: int | None = None
    """Longest query in tokens, with the prefix; None is the longest input of the model."""
    document_length: int | None = None
    """Longest document in tokens, with the prefix; None is the longest input of the model."""
    expansion: Expansion = "none"
    """Whether short queries are filled up with tokens whose vectors count: `fixed` fills them up to
    `query_length`, `min` to `expansion_length`; longer ones may have up to `query_length`."""
    expansion_length: int | None = None
    """Fewest tokens of a query with expansion `min`, with the prefix; unused otherwise."""
    filler: str | None = None
    """Token that queries are filled up with; None is the mask, or else the end of a sequence."""
    attend: bool = False
    """Whether the other tokens attend to those tokens."""
    skiplist: tuple[str, ...] = ()
    """Tokens of documents whose vectors are left out."""

    def check(self) -> None:
        """Raise `UserError` for an unknown expansion, or lengths that contradict each other."""
        if self.expansion not in (known := get_args(Expansion)):
            hint = did_you_mean(self.expansion, known)
            raise UserError(f"expansion is {self.expansion!r}; {hint}")
        if self.expansion != "min":
            return
        if not self.expansion_length or self.expansion_length < 1:
            raise UserError("expansion 'min' needs expansion_length, the fewest tokens of a query")
        if self.query_length and self.query_length < self.expansion_length:
            raise UserError(
                f"queries are filled up to {self.expansion_length} tokens, but they may have"
                f" {self.query_length}; raise query_length or lower expansion_length"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenPooling:
    """Clusters of a document's token vectors, each replaced by its mean (Clavié et al. 2024)."""

    factor: float = 1.0
    """Number of vectors of a cluster on average; 1 keeps every vector."""
    protected: int = 1
    """Number of the first vectors that stay as they are: the token that begins every text."""
    normalize: bool = True
    """Whether all resulting vectors are divided by their length."""

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise UserError(f"the factor of token pooling is {self.factor}; it must be 1 or more")
        if self.protected < 0:
            raise UserError(
                f"token pooling protects {self.protected} vectors; it must be 0 or more"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Modules after the encoder, with the preparation of texts."""

    kind: Kind
    steps: tuple[Step, ...] = ()
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Prefixes of texts by name."""
    default_prompt: str | None = None
    """Name of the prompt for texts without an explicit one; None is no prompt."""
    similarity: str | None = None
    """Name of the similarity of two texts in the files: a key of `SIMILARITIES`, or of
    `late_interaction.SIMILARITIES`; None where there is none."""
    truncate_dim: int | None = None
    """Number of the first numbers of a vector that are kept; None keeps all."""
    max_length: int | None = None
    """Longest input in tokens; None is that of the architecture."""
    lower_case: bool = False
    """Whether texts are converted to lower case."""
    late: LateInteraction | None = None
    max_active_dims: int | None = None
    """Number of the largest weights of a sparse vector that are kept; None keeps all."""
    token_pooling: TokenPooling | None = None
    """Pooling of documents in late interaction; None keeps every vector."""
    activation: str | None = None
    """Activation of a reranker's scores, a key of `ACTIVATIONS`; None is the default."""

    @property
    def splade(self) -> SpladePooling | None:
        """The pooling step of a sparse model; None in other models."""
        return next((step for step in self.steps if isinstance(step, SpladePooling)), None)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The steps with parameters."""
        return tuple(step for step in self.steps if isinstance(step, Layer))

    @property
    def pooling(self) -> Pooling | None:
        """The pooling step; None in models with a vector per token."""
        return next((step for step in self.steps if isinstance(step, Pooling)), None)

    def width(self, hidden_size: int) -> int:
        """Width of the vectors for an encoder of width `hidden_size`, before they are cut."""
        for step in self.steps:
            hidden_size = _width_after(step, hidden_size)
        return hidden_size

    def check_widths(self, hidden_size: int) -> None:
        """Raise `UserError` for a layer of another width than the vectors that it gets.

        Args:
            hidden_size: width of the encoder.
        """
        width = hidden_size
        for step in self.steps:
            takes = step.in_features if isinstance(step, Dense) else width
            takes = step.dimension if isinstance(step, LayerNorm) else takes
            if isinstance(step, Layer) and takes != width:
                name = step.path or step.name
                raise UserError(f"{name} takes vectors of width {takes}, but they have {width}")
            width = _width_after(step, width)

    def prompt(self, name: str | None) -> str:
        """The prompt of a name, or the default prompt.

        Raises:
            UserError: an unknown name.
        """
        name = self.default_prompt if name is None else name
        if name is not None and name not in self.prompts:
            raise UserError(f"prompt_name is {name!r}; {did_you_mean(name, self.prompts)}")
        return "" if name is None else self.prompts[name]


def _width_after(step: Step, width: int) -> int:
    """Width of vectors after a step."""
    if isinstance(step, Dense):
        return step.out_features
    return width * len(step.modes) if isinstance(step, Pooling) else width


def reranker_activation(name: str | None, labels: int) -> Callable[[jax.Array], jax.Array]:
    """Activation of a cross-encoder's logits, by name or the default for a number of labels.

    Raises:
        UserError: an unknown name.
    """
    if name is None:
        name = "torch.nn.modules.activation.Sigmoid" if labels == 1 else IDENTITY
    if name not in ACTIVATIONS:
        raise UserError(f"activation is {name!r}; {did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
