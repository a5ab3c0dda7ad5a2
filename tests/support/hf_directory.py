"""Hugging Face directories with random weights, written without the code under test."""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np
import tiny
from safetensors.numpy import save_file

from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.config import ModernBertConfig

MIXED = ("float32", "bfloat16", "float16")


def shapes(
    c: ModernBertConfig, architecture: str = "ModernBertForMaskedLM", labels: int = 2
) -> dict[str, tuple[int, ...]]:
    """List names and shapes of transformers' tensors, by hand."""
    v, d, f = c.vocab_size, c.hidden_size, c.intermediate_size
    weights = {"embeddings.tok_embeddings": (v, d)}
    norms = ["embeddings.norm", "final_norm"]
    biased = {}
    for i in range(c.num_hidden_layers):
        layer = f"layers.{i}"
        weights[f"{layer}.attn.Wqkv"], weights[f"{layer}.attn.Wo"] = (3 * d, d), (d, d)
        weights[f"{layer}.mlp.Wi"], weights[f"{layer}.mlp.Wo"] = (2 * f, d), (d, f)
        norms += [f"{layer}.mlp_norm", *([f"{layer}.attn_norm"] if i else [])]
        biased |= {f"{layer}.attn.Wqkv": c.attention_bias, f"{layer}.attn.Wo": c.attention_bias}
        biased |= {f"{layer}.mlp.Wi": c.mlp_bias, f"{layer}.mlp.Wo": c.mlp_bias}
    names = {f"{n}.weight": s for n, s in weights.items()} | {f"{n}.weight": (d,) for n in norms}
    names |= {f"{n}.bias": weights[n][:1] for n, bias in biased.items() if bias}
    names |= {f"{n}.bias": (d,) for n in norms if c.norm_bias}
    if architecture == "ModernBertModel":
        return names
    names = {f"model.{n}": s for n, s in names.items()}
    names |= {"head.dense.weight": (d, d), "head.norm.weight": (d,)}
    names |= {"head.dense.bias": (d,)} if c.classifier_bias else {}
    names |= {"head.norm.bias": (d,)} if c.norm_bias else {}
    if architecture != "ModernBertForMaskedLM":
        return names | {"classifier.weight": (labels, d), "classifier.bias": (labels,)}
    names |= {} if c.tie_word_embeddings else {"decoder.weight": (v, d)}
    return names | ({"decoder.bias": (v,)} if c.decoder_bias else {})


def weights(
    shapes: Mapping[str, tuple[int, ...]], dtype: str | Callable[[int], str] = "float32"
) -> dict[str, np.ndarray]:
    """Draw random tensors; `dtype` is one for all, or a function of the tensor's number."""
    rng = np.random.default_rng(0)
    of = dtype if callable(dtype) else lambda _: dtype
    return {
        name: (0.18 * rng.standard_normal(shape) + (1.0 if "norm.weight" in name else 0.0)).astype(
            of(i)
        )
        for i, (name, shape) in enumerate(shapes.items())
    }


def mixed(number: int) -> str:
    """Return a dtype for `weights` that varies between tensors, also within a stack."""
    return MIXED[zlib.crc32(bytes([number])) % 3]


def config_json(c: ModernBertConfig, **keys: Any) -> dict[str, Any]:
    """Return flat keys, as in the released files, with `keys` added."""
    written = {name: getattr(c, name) for name in c.__dataclass_fields__}
    del written["causal"]
    for name in ("layer_types", "global_rope_scaling", "local_rope_scaling"):
        if written[name] is None:
            del written[name]
    return {
        "model_type": "modernbert",
        "architectures": ["ModernBertForMaskedLM"],
        **written,
        **keys,
    }


def write(
    directory: Path,
    tensors: Mapping[str, np.ndarray] | None = None,
    config: ModernBertConfig | None = None,
    **keys: Any,
) -> Path:
    """Write a masked LM of the tiny config, or other tensors and keys of `config.json`."""
    config = config or tiny.config()
    directory.mkdir(parents=True, exist_ok=True)
    tensors = weights(shapes(config)) if tensors is None else tensors
    save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config_json(config, **keys)))
    return directory


def tokenizer() -> tokenizers.Tokenizer:
    """Train a tokenizer of bytes and a few words with 320 ids."""
    return tokenizers.train(["hello world, hello there", "a b c d"] * 5, 320)
