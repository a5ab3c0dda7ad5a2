"""Tiny configurations and packed rows for tests."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from modernbert_jax.config import ModernBertConfig


class Rows(NamedTuple):
    """A packed batch, int32 [B, T] each: the arguments of every model, in order."""

    token_ids: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray


def config(**changes) -> ModernBertConfig:
    """Return a config: layer 0, a group of three, a tail of one; two heads of 16; a window of 8."""
    values = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "local_attention": 8,
        "bos_token_id": 0,
        "cls_token_id": 0,
        "eos_token_id": 1,
        "sep_token_id": 1,
        "pad_token_id": 2,
    }
    return ModernBertConfig(**values | changes)


def segments(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Return segment ids of rows with documents of these lengths; the rest is padding."""
    ids = np.zeros((len(rows), length), np.int32)
    for row, lengths in zip(ids, rows, strict=True):
        start = 0
        for number, n in enumerate(lengths, start=1):
            row[start : start + n] = number
            start += n
        assert start <= length
    return ids


def positions(segment_ids: np.ndarray) -> np.ndarray:
    """Count positions from 0 in every document, by a plain loop; 0 on padding."""
    counts = np.zeros_like(segment_ids)
    for row, ids in zip(counts, segment_ids, strict=True):
        for t in range(1, len(row)):
            if ids[t] and ids[t] == ids[t - 1]:
                row[t] = row[t - 1] + 1
    return counts


def rows(
    lengths: Sequence[Sequence[int]], length: int, vocab_size: int = 96, seed: int = 0
) -> Rows:
    """Draw packed random documents of these lengths."""
    ids = segments(lengths, length)
    tokens = np.random.default_rng(seed).integers(0, vocab_size, ids.shape, dtype=np.int32)
    return Rows(tokens, ids, positions(ids))


def randomised(params, seed: int = 0):
    """Draw parameters that all matter: matrices of size 1/sqrt(fan in), norms near 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "scale":
            return 1 + 0.2 * noise
        if path[-1].key == "bias":
            return 0.2 * noise
        return noise * leaf.shape[-2] ** -0.5

    return jax.tree_util.tree_map_with_path(draw, params)
