"""Golden cases: architectures, weights and packed documents that need no storage.

Everything follows from a case's name with numpy. So the script that runs transformers and the tests
of this library have the same weights without a file. A weight depends only on the case and its
Hugging Face name.
"""

import dataclasses
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parents[1] / "goldens"

POSITIONS = 48
"""Number of tokens whose hidden states and logits are stored; half are at document ends."""

ENTRIES = 96
"""Number of entries of each gradient that are stored, besides its norm."""

_FULL, _SLIDING = "full_attention", "sliding_attention"


def _rope(full: float = 160_000.0, sliding: float = 10_000.0) -> dict[str, dict[str, Any]]:
    return {
        _FULL: {"rope_type": "default", "rope_theta": full},
        _SLIDING: {"rope_type": "default", "rope_theta": sliding},
    }


_COMMON = {
    "model_type": "modernbert",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 1,
    "layer_types": [_FULL, _SLIDING, _SLIDING, _FULL, _SLIDING],
    "rope_parameters": _rope(),
    "local_attention": 128,
    "bos_token_id": 0,
    "cls_token_id": 0,
    "eos_token_id": 1,
    "sep_token_id": 1,
    "pad_token_id": 2,
    "norm_eps": 1e-5,
    "tie_word_embeddings": True,
}

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 256,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def _layers(n: int, every: int = 3) -> dict[str, Any]:
    kinds = [_SLIDING if i % every else _FULL for i in range(n)]
    return {"num_hidden_layers": n, "layer_types": kinds}


CASES: dict[str, dict[str, Any]] = {
    "every_third": _layers(7) | {"num_attention_heads": 2},
    "every_second": _layers(6, every=2),
    "all_global": _layers(3, every=1),
    "irregular": {"layer_types": [_SLIDING, _FULL, _FULL, _SLIDING, _FULL]},
    "head_dim_32": _layers(3) | {"num_attention_heads": 2},
    "head_dim_128": _layers(2) | {"hidden_size": 128},
    "biases": {
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "decoder_bias": True,
    },
    "no_decoder_bias": _layers(2) | {"decoder_bias": False, "norm_eps": 1e-3},
    "silu": _layers(2)
    | {"hidden_activation": "silu", "classifier_activation": "gelu_pytorch_tanh"},
    "untied": _layers(2) | {"tie_word_embeddings": False},
    "window_16": _layers(3) | {"local_attention": 16},
    "window_127": _layers(3) | {"local_attention": 127},
    "thetas": _layers(3) | {"rope_parameters": _rope(80_000.0, 500.0)},
    "stretched": _layers(3)
    | {
        "rope_parameters": {
            _FULL: {"rope_theta": 160_000.0, **_YARN},
            _SLIDING: {"rope_theta": 10_000.0, **_LLAMA3},
        }
    },
}
"""Differences from `_COMMON` by case, in the form of transformers 5."""

ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_theta": 10_000.0, "rope_type": "linear", "factor": 2.5},
    "yarn": {"rope_theta": 160_000.0, **_YARN},
    "yarn_betas": {"rope_theta": 10_000.0, **_YARN, "beta_fast": 16.0, "beta_slow": 2.0},
    "yarn_attention_factor": {"rope_theta": 10_000.0, **_YARN, "attention_factor": 1.25},
    "yarn_long": {
        "rope_theta": 160_000.0,
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 8192,
    },
    "llama3": {"rope_theta": 10_000.0, **_LLAMA3},
    "llama3_long": {
        "rope_theta": 500_000.0,
        "rope_type": "llama3",
        "factor": 32.0,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.5,
        "high_freq_factor": 3.0,
    },
}
"""Rotary parameters whose frequencies are stored, for a head of 64."""


THETAS = (10_000.0, 80_000.0, 160_000.0)
HEAD_DIMS = (32, 64, 128)
"""Thetas and head sizes for which plain rotary frequencies are stored."""


class Batch(NamedTuple):
    """Packed rows, int32 [B, T] each; labels are -100 where nothing is predicted."""

    token_ids: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Document:
    """A document: its position in the batch, its tokens and its labels."""

    row: int
    start: int
    token_ids: np.ndarray
    labels: np.ndarray


def hf_config(name: str) -> dict[str, Any]:
    """Return the content of the case's `config.json`."""
    return _COMMON | CASES[name]


def weight(name: str, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw the tensor of a Hugging Face name, float32, scaled so that activations are O(1)."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(tensor.encode())])
    noise = rng.standard_normal(shape, np.float32)
    if tensor.endswith("bias"):
        return np.float32(0.3) * noise
    if len(shape) == 1:
        return np.float32(1) + np.float32(0.3) * noise
    return np.float32(shape[1] ** -0.5) * noise


def documents(name: str) -> list[Document]:
    """Draw the case's documents, with lengths around block and window edges and random ones."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    vocab = hf_config(name)["vocab_size"]
    drawn = []
    for row, fixed in enumerate(((300, 1, 128), (129, 257))):
        start = 0
        for length in (*fixed, int(rng.integers(60, 130)), int(rng.integers(2, 20))):
            token_ids = rng.integers(3, vocab, length, dtype=np.int32)
            picked = rng.random(length) < 0.3
            labels = np.where(picked, rng.integers(3, vocab, length), -100).astype(np.int32)
            drawn.append(Document(row, start, token_ids, labels))
            start += length
    return drawn


def batch(name: str, length: int = 620) -> Batch:
    """Pack the case's documents into two rows, each with padding at its end."""
    rows = Batch(*(np.zeros((2, length), np.int32) for _ in range(3)), None)
    rows = rows._replace(labels=np.full((2, length), -100, np.int32))
    pad = hf_config(name)["pad_token_id"]
    rows.token_ids[:] = pad
    seen = [0, 0]
    for document in documents(name):
        seen[document.row] += 1
        n = len(document.token_ids)
        here = document.row, slice(document.start, document.start + n)
        rows.token_ids[here] = document.token_ids
        rows.segment_ids[here] = seen[document.row]
        rows.positions[here] = np.arange(n)
        rows.labels[here] = document.labels
    return rows


def stored_positions(name: str) -> np.ndarray:
    """Return indices into all documents concatenated: their ends and random tokens."""
    lengths = np.array([len(d.token_ids) for d in documents(name)])
    ends = np.concatenate([np.cumsum(lengths) - lengths, np.cumsum(lengths) - 1])
    rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    more = rng.permutation(np.setdiff1d(np.arange(lengths.sum()), ends))
    return np.sort(np.concatenate([np.unique(ends), more])[:POSITIONS])


def stored_entries(name: str, tensor: str, size: int) -> np.ndarray:
    """Return flat indices into a gradient of this size, in the layout of torch."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(tensor.encode()), 1])
    return np.sort(rng.permutation(size)[:ENTRIES])
