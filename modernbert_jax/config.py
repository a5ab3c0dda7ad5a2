"""`ModernBertConfig`, the architecture with its presets and file forms, and `Runtime`.

Both are plain immutable values. The architecture defines what is computed, the runtime how.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from modernbert_jax import hf_config
from modernbert_jax.architecture import SLIDING, Architecture, LayerKind
from modernbert_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernBertConfig(Architecture):
    """Architecture of a model, by preset or from a Hugging Face `config.json`."""

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModernBertConfig:
        """An architecture of `PRESETS` with some fields changed. Raises `UserError`."""
        if name not in PRESETS:
            raise UserError(f"no model preset is named {name!r}; {did_you_mean(name, PRESETS)}")
        return dataclasses.replace(PRESETS[name], **changes)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ModernBertConfig:
        """The architecture of a Hugging Face `config.json`, in the form of version 4 or 5.

        Raises:
            UserError: invalid keys; the message lists all of them.
        """
        return cls(**hf_config.read(config))

    def to_hf(self, **keys: Any) -> dict[str, Any]:
        """A `config.json` for transformers 4 and 5, with more `keys` such as `architectures`."""
        return hf_config.write(self, keys)


Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "dots", "full"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """Settings of the computation of a model. Parameters are always float32."""

    dtype: Dtype = "float32"
    """Dtype of matrix products and attention. Norms, softmax and residual sums are float32."""
    remat: Remat = "none"
    """Recomputation in the backward pass: nothing, all but matrix products, or everything."""
    attention: str = "auto"
    """Implementation of attention: "auto" or a key of `attention.IMPLEMENTATIONS`."""
    sliding_attention: str | None = None
    """Implementation of attention in sliding layers; None is that of `attention`."""
    scan_layers: bool = True
    """Whether layer groups are scanned; False unrolls them, with the same stored parameters."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("dtype", ("float32", "bfloat16")),
            ("remat", ("none", "dots", "full")),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}; it must be {' or '.join(allowed)}"
                )

    def attention_of(self, kind: LayerKind) -> str:
        """The requested implementation of attention in layers of a kind."""
        if kind == SLIDING and self.sliding_attention is not None:
            return self.sliding_attention
        return self.attention


def _sized(
    layers: int, hidden: int, intermediate: int, heads: int, **more: Any
) -> ModernBertConfig:
    return ModernBertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        **more,
    )


_ETTIN = {"local_rope_theta": 160_000.0, "max_position_embeddings": 7999}

PRESETS: dict[str, ModernBertConfig] = {
    "base": _sized(22, 768, 1152, 12),
    "large": _sized(28, 1024, 2624, 16),
    "ettin-17m": _sized(7, 256, 384, 4, **_ETTIN),
    "ettin-32m": _sized(10, 384, 576, 6, **_ETTIN),
    "ettin-68m": _sized(19, 512, 768, 8, **_ETTIN),
    "ettin-150m": _sized(22, 768, 1152, 12, **_ETTIN),
    "ettin-400m": _sized(28, 1024, 2624, 16, **_ETTIN),
    "ettin-1b": _sized(28, 1792, 3840, 28, **_ETTIN),
    "nano": _sized(
        4,
        128,
        192,
        2,
        vocab_size=2048,
        initializer_range=0.08,  # 0.02 suits wider models: 128 inputs need about 1/sqrt(128)
        bos_token_id=2044,
        cls_token_id=2044,
        eos_token_id=2045,
        sep_token_id=2045,
        pad_token_id=2046,
    ),
}
"""ModernBERT (Warner et al. 2024, table 4), Ettin (Weller et al. 2025), and one for tests."""
