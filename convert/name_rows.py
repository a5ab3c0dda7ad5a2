"""Rows of the table of names: where each tensor of an encoder, head or module belongs.

The rows of an encoder omit the prefix that the foreign names have in front of a head, and the
outer key that our parameters have there; `names.table` adds both.
"""

import dataclasses

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.pipeline import Dense, Layer

TOKEN_TABLE = "embeddings.tok_embeddings.weight"
"""Foreign name of the token embeddings, without the encoder's prefix."""

ParameterPath = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """Mapping of a foreign array [out, in] to ours [in, out]; exact in both directions."""

    parts: int | None = None
    """Number of tensors stacked along the outputs, which get an axis of their own; or None."""
    transpose: bool = False

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        if self.parts:
            x = x.reshape(self.parts, x.shape[0] // self.parts, *x.shape[1:])
        return x.swapaxes(-1, -2) if self.transpose else x

    def to_foreign(self, x: np.ndarray) -> np.ndarray:
        x = x.swapaxes(-1, -2) if self.transpose else x
        return x.reshape(-1, *x.shape[2:]) if self.parts else x


@dataclasses.dataclass(frozen=True)
class Row:
    """One foreign tensor: its shape, and its place among our parameters."""

    shape: tuple[int, ...]
    path: ParameterPath
    transform: Transform = Transform()
    index: int | None = None
    """Position in the stack at `path`; None if it is stored alone."""
    part: int | None = None
    """Position on the axis of parts if the tensor is one of them, else None."""


def encoder(config: ModernBertConfig) -> dict[str, Row]:
    """Rows of the embeddings, all layers and the final norm."""
    table = Row((config.vocab_size, config.hidden_size), ("embeddings", "embedding"))
    rows = {TOKEN_TABLE: table, **_norm(config, "embeddings.norm", ("embeddings", "norm"))}
    for i in range(config.num_hidden_layers):
        rows |= _layer(config, i)
    return rows | _norm(config, "final_norm", ("final_norm",))


def language_model(config: ModernBertConfig) -> dict[str, Row]:
    """Rows of a head that predicts tokens, masked or next."""
    v, d = config.vocab_size, config.hidden_size
    rows = _prediction(config, "lm_head" if config.causal else "head")
    if not config.tie_word_embeddings:
        rows |= _linear("decoder", ("decoder", "linear"), d, v, bias=False)
    if config.decoder_bias:
        rows["decoder.bias"] = Row((v,), ("decoder", "bias"))
    return rows


def classifier(config: ModernBertConfig, labels: int) -> dict[str, Row]:
    """Rows of a classification head with `labels` outputs."""
    bias = config.classifier_bias or not config.causal
    rows = _prediction(config, "head")
    return rows | _linear("classifier", ("classifier",), config.hidden_size, labels, bias)


def layer(module: Layer) -> dict[str, Row]:
    """Rows of a module after the model, whose folder is part of the foreign names."""
    if isinstance(module, Dense):
        rows = _dense(module)
    else:
        size = (module.dimension,)
        rows = {
            "norm.weight": Row(size, (module.name, "scale")),
            "norm.bias": Row(size, (module.name, "bias")),
        }
    return {f"{module.path}/{name}": row for name, row in rows.items()}


def _dense(module: Dense) -> dict[str, Row]:
    key, d, e = module.name, module.in_features, module.out_features
    rows = _linear("linear", (key, "linear"), d, e, module.bias)
    if module.residual and d != e:
        rows |= _linear("residual", (key, "residual"), d, e, bias=False)
    return rows


def _layer(config: ModernBertConfig, i: int) -> dict[str, Row]:
    d, f, (path, index) = config.hidden_size, config.intermediate_size, config.locate(i)
    attention, mlp = config.attention_bias, config.mlp_bias
    rows = _norm(config, "attn_norm", (*path, "attn_norm")) if i else {}
    qkv = (*path, "attn", "Wqkv")
    if config.causal:
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            third = _linear(f"attn.{name}", qkv, d, d, attention)
            rows |= {name: dataclasses.replace(row, part=part) for name, row in third.items()}
    else:
        rows |= _linear("attn.Wqkv", qkv, d, 3 * d, attention, parts=3)
    rows |= _linear("attn.Wo", (*path, "attn", "Wo"), d, d, attention)
    rows |= _norm(config, "mlp_norm", (*path, "mlp_norm"))
    rows |= _linear("mlp.Wi", (*path, "mlp", "Wi"), d, 2 * f, mlp, parts=2)
    rows |= _linear("mlp.Wo", (*path, "mlp", "Wo"), f, d, mlp)
    return {
        f"layers.{i}.{name}": dataclasses.replace(row, index=index) for name, row in rows.items()
    }


def _prediction(config: ModernBertConfig, name: str) -> dict[str, Row]:
    """Rows of the dense layer and norm that every head begins with."""
    d = config.hidden_size
    rows = _linear(f"{name}.dense", ("head", "dense"), d, d, config.classifier_bias)
    return rows | _norm(config, f"{name}.norm", ("head", "norm"))


def _linear(
    name: str, path: ParameterPath, inputs: int, outputs: int, bias: bool, parts: int | None = None
) -> dict[str, Row]:
    kernel = Row((outputs, inputs), (*path, "kernel"), Transform(parts, transpose=True))
    rows = {f"{name}.weight": kernel}
    if bias:
        rows[f"{name}.bias"] = Row((outputs,), (*path, "bias"), Transform(parts))
    return rows


def _norm(config: ModernBertConfig, name: str, path: ParameterPath) -> dict[str, Row]:
    rows = {f"{name}.weight": Row((config.hidden_size,), (*path, "scale"))}
    if config.norm_bias:
        rows[f"{name}.bias"] = Row((config.hidden_size,), (*path, "bias"))
    return rows
