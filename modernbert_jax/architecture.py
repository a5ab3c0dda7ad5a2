"""The fields of an architecture, their validation, and the facts that follow from them.

Names are those of the Hugging Face configuration. `config.ModernBertConfig` adds presets and files.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import cached_property
from typing import Any, Literal, NamedTuple

from modernbert_jax.errors import UserError

LayerKind = Literal["full_attention", "sliding_attention"]
FULL: LayerKind = "full_attention"
SLIDING: LayerKind = "sliding_attention"

ACTIVATIONS = (
    *("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu"),
    *("relu", "silu", "swish", "tanh"),
)
POOLINGS = ("cls", "mean", "max")
LIMITS = {
    "vocab_size": 2**31 - 1,
    "hidden_size": 2**20,
    "intermediate_size": 2**24,
    "num_hidden_layers": 10_000,
}
"""Upper limits, far above any model: they stop damaged files before memory is allocated."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Scaling of the rotary frequencies of one layer kind, as transformers' `rope_parameters`."""

    rope_type: Literal["linear", "yarn", "llama3"]
    factor: float
    """Ratio of the longest position to the original context."""
    original_max_position_embeddings: int
    attention_factor: float | None = None
    """Factor on cosines and sines, for yarn; None is 0.1 ln(factor) + 1."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        if self.rope_type in ("dynamic", "longrope"):
            raise UserError(
                f"rope_type {self.rope_type!r} is not supported: its frequencies follow the longest"
                " sequence of a batch, so that a document's result would depend on its neighbours"
            )
        if self.rope_type not in ("linear", "yarn", "llama3"):
            raise UserError(f"rope_type is {self.rope_type!r}; allowed: linear, yarn, llama3")
        if self.factor < 1:
            raise UserError(f"rope factor is {self.factor}; it must be 1 or more")


class ScanPlan(NamedTuple):
    """Storage of the layers after layer 0: `groups` repeats of `pattern`, then `tail`."""

    pattern: tuple[LayerKind, ...]
    groups: int
    tail: range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture of a model; the defaults are ModernBERT base.

    Raises:
        UserError: invalid values; the message names every field and what it allows.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    """Width of one half of the gated linear unit."""
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    global_attn_every_n_layers: int = 3
    """Period of global layers: layer i is global where i is a multiple of it, else sliding."""
    layer_types: tuple[LayerKind, ...] | None = None
    """Kind of each layer of an irregular pattern; None where the period above describes it."""
    causal: bool = False
    """Whether the model is a decoder, in which no token attends to later ones."""
    local_attention: int = 128
    """Window of sliding layers, in tokens. Token i attends to j where |i - j| <= window // 2; in a
    decoder to the window // 2 tokens that end with itself."""
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    global_rope_scaling: RopeScaling | None = None
    local_rope_scaling: RopeScaling | None = None
    max_position_embeddings: int = 8192
    """Longest document that the model supports, in tokens; no array has this size."""
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    tie_word_embeddings: bool = True
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    """Dropout rate after the output projection of attention; probabilities have no dropout."""
    mlp_dropout: float = 0.0
    classifier_pooling: str = "mean"
    classifier_activation: str = "gelu"
    classifier_bias: bool = False
    """Whether the prediction head's dense layer has a bias."""
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    bos_token_id: int | None = 50281
    cls_token_id: int | None = 50281
    eos_token_id: int | None = 50282
    sep_token_id: int | None = 50282
    pad_token_id: int | None = 50283

    def __post_init__(self) -> None:
        wanted: list[tuple[str, bool, str]] = []  # reported together
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "global_attn_every_n_layers",
            "local_attention",
            "max_position_embeddings",
        ):
            value = getattr(self, name)
            wanted.append((name, type(value) is int and value > 0, "a whole number of 1 or more"))
        for name, most in LIMITS.items():
            value = getattr(self, name)
            wanted.append((name, type(value) is not int or value <= most, f"at most {most:,}"))
        for name in (
            "global_rope_theta",
            "local_rope_theta",
            "norm_eps",
            "initializer_range",
            "initializer_cutoff_factor",
        ):
            value = getattr(self, name)
            wanted.append((name, _is_number(value) and value > 0, "a number above 0"))
        for name in ("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"):
            value = getattr(self, name)
            wanted.append(
                (name, _is_number(value) and 0 <= value < 1, "a rate of at least 0 and below 1")
            )
        for name in ("hidden_activation", "classifier_activation"):
            wanted.append((name, getattr(self, name) in ACTIVATIONS, " or ".join(ACTIVATIONS)))
        wanted.append(
            ("classifier_pooling", self.classifier_pooling in POOLINGS, " or ".join(POOLINGS))
        )
        if problems := [self._problem(*w) for w in wanted if not w[1]]:
            raise UserError("; ".join(problems))
        self._require(
            "num_attention_heads",
            self.hidden_size % self.num_attention_heads == 0 and self.head_dim % 2 == 0,
            f"a number that divides hidden_size {self.hidden_size} into heads of even size",
        )
        self._require(
            "pad_token_id",
            self.pad_token_id is None or 0 <= self.pad_token_id < self.vocab_size,
            f"below vocab_size {self.vocab_size}, or null",
        )
        if self.causal:
            self._require("local_attention", self.local_attention > 1, "2 or more in a decoder")
        if self.layer_types is not None:
            self._set_layer_types(tuple(self.layer_types))

    def _require(self, name: str, ok: bool, allowed: str) -> None:
        if not ok:
            raise UserError(self._problem(name, ok, allowed))

    def _problem(self, name: str, ok: bool, allowed: str) -> str:
        return f"{name} is {getattr(self, name)!r:.80}; it must be {allowed}"

    def _set_layer_types(self, kinds: tuple[LayerKind, ...]) -> None:
        """Store an irregular pattern; turn a regular one into `global_attn_every_n_layers`."""
        for kind in kinds:
            if kind not in (FULL, SLIDING):
                raise UserError(
                    f"layer_types has {kind!r}; each entry must be {FULL!r} or {SLIDING!r}"
                )
        if len(kinds) != self.num_hidden_layers:
            raise UserError(
                f"layer_types has {len(kinds)} entries; it must have one for each of the"
                f" {self.num_hidden_layers} layers"
            )
        periods = (self.global_attn_every_n_layers, *range(1, len(kinds) + 1))
        regular = [n for n in periods if kinds == _every(n, len(kinds))]
        object.__setattr__(self, "layer_types", None if regular else kinds)
        if regular:
            object.__setattr__(self, "global_attn_every_n_layers", regular[0])

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @cached_property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The kind of every layer, in order."""
        return self.layer_types or _every(self.global_attn_every_n_layers, self.num_hidden_layers)

    @cached_property
    def scan_plan(self) -> ScanPlan:
        """The stacked layers and the others; an irregular pattern stacks none."""
        period, rest = self.global_attn_every_n_layers, self.num_hidden_layers - 1
        groups = 0 if self.layer_types else rest // period
        pattern = self.layer_kinds[1 : 1 + period] if groups else ()
        return ScanPlan(pattern, groups, range(1 + groups * len(pattern), self.num_hidden_layers))

    def locate(self, layer: int) -> tuple[tuple[str, ...], int | None]:
        """Path of a layer's parameters, and its index in their stack.

        The index is None for a layer that is stored alone. Only this function knows the layout.
        """
        if layer == 0 or layer in self.scan_plan.tail:
            return (f"layer_{layer}",), None
        group, j = divmod(layer - 1, len(self.scan_plan.pattern))
        return ("groups", block_name(self.scan_plan.pattern[j], j)), group

    def rope(self, kind: LayerKind) -> tuple[float, RopeScaling | None]:
        """Theta and scaling of the rotary embedding in layers of this kind."""
        if kind == FULL:
            return self.global_rope_theta, self.global_rope_scaling
        return self.local_rope_theta, self.local_rope_scaling

    def window(self, kind: LayerKind) -> int | None:
        """The window of `attention.key_ranges` for layers of this kind; None is unlimited."""
        if kind == FULL:
            return None
        # A decoder counts the token itself, an encoder the tokens on one side of it.
        return 2 * (self.local_attention // 2 - 1) if self.causal else self.local_attention

    def parameter_count(self, *, head: bool = True) -> int:
        """Number of parameters of the encoder, with those of the masked-LM head if `head`."""
        v, d, f, n = (
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
        )
        norm = d * (1 + self.norm_bias)
        attention = 4 * d * d + (4 * d if self.attention_bias else 0)
        mlp = 3 * d * f + (2 * f + d if self.mlp_bias else 0)
        encoder = v * d + n * (attention + mlp) + (2 * n + 1) * norm
        if not head:
            return encoder
        decoder = (0 if self.tie_word_embeddings else v * d) + (v if self.decoder_bias else 0)
        return encoder + d * d + (d if self.classifier_bias else 0) + norm + decoder

    def flops_per_token(self, document_length: float, predicted: float = 0.0) -> float:
        """Floating-point operations per token of a forward pass; training takes 3 times as many.

        Counted analytically, because XLA counts the body of a scan once. Norms, rotations and
        softmax are left out.

        Args:
            document_length: mean number of keys per token in a global layer.
            predicted: share of tokens that pass through the masked-LM head.
        """
        d, f = self.hidden_size, self.intermediate_size
        side = self.local_attention // 2
        near = min(document_length, side if self.causal else 2 * side + 1)
        keys = sum(document_length if kind == FULL else near for kind in self.layer_kinds)
        layers = self.num_hidden_layers * 2 * (4 * d * d + 3 * d * f) + 4 * d * keys
        return layers + predicted * 2 * (d * d + d * self.vocab_size)


def block_name(kind: LayerKind, index: int) -> str:
    """Parameter name of the block at `index` within a group."""
    return f"{'global' if kind == FULL else 'local'}_{index}"


def _is_number(value: Any) -> bool:
    finite = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return finite and not isinstance(value, bool)


def _every(n: int, layers: int) -> tuple[LayerKind, ...]:
    return tuple(FULL if i % n == 0 else SLIDING for i in range(layers))
