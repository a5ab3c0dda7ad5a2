"""Lengths of labelled examples, for the shapes of `modernbert_jax.inference.shapes`."""

from collections.abc import Sequence

from modernbert_jax.inference.shapes import DOCUMENTS, Lengths, Row, Shape, arrange, choose
from modernbert_jax.sharding import check_mesh

from ..tasks import Example

__all__ = ["DOCUMENTS", "Lengths", "Row", "Shape", "arrange", "check_mesh", "choose", "lengths_of"]


def lengths_of(examples: Sequence[Example]) -> list[list[int]]:
    """Lengths of the sequences of each example, in tokens."""
    return [[len(ids) for ids in example.sequences] for example in examples]
