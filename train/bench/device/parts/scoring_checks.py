"""Similarity of late interaction against its definition in float64."""

from collections.abc import Iterator

import numpy as np

from modernbert_jax import late_interaction

from ..registry import register
from ..results import FailedCheckError, Number, Numbers, Result, attempt
from ..scale import Scale

LIMIT = 1e-5
"""Largest error relative to the largest score."""

WIDTH = 128


@register("maxsim", group="scoring", order=70, seconds=5)
def maxsim(scale: Scale) -> Iterator[Result]:
    """Scores of queries and documents, which the host computes."""
    labels = {"function": "late_interaction.maxsim", "where": "host"}
    yield attempt("maxsim float32", labels, lambda: _maxsim(scale))


def _maxsim(scale: Scale) -> Numbers:
    rng = np.random.default_rng(0)
    count, longest = (3, 20) if scale.tiny else (32, 300)

    def texts(most: int) -> list[np.ndarray]:
        lengths = rng.integers(1, most + 1, count)
        return [rng.standard_normal((n, WIDTH)).astype(np.float32) for n in lengths]

    queries, documents = texts(32), texts(longest)
    exact = np.array(
        [[(q.astype(float) @ d.T.astype(float)).max(1).sum() for d in documents] for q in queries]
    )
    off = late_interaction.maxsim(queries, documents) - exact
    error = float(np.abs(off).max() / np.abs(exact).max())
    numbers = {"scores": Number(error, "")}
    if not error <= LIMIT:
        raise FailedCheckError(f"scores are off by {error:.1e}", numbers)
    return numbers
