"""Similarities of vectors, by their names in sentence-transformers."""

from collections.abc import Callable

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors [..., E] divided by their norms; zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of a [n, E] and b [m, E]: [n, m]."""
    return dot(unit(a), unit(b))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products of a [n, E] and b [m, E]: [n, m]."""
    return a @ b.T


def euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Negative Euclidean distances of a [n, E] and b [m, E]: [n, m]."""
    return -np.stack([np.linalg.norm(b - x, axis=-1) for x in a]) if len(a) else dot(a, b)


def manhattan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Negative sums of absolute differences of a [n, E] and b [m, E]: [n, m]."""
    return -np.stack([np.abs(b - x).sum(-1) for x in a]) if len(a) else dot(a, b)


SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}
"""Similarity functions by name; larger is more similar."""
