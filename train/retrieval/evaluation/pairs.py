"""Similarity of pairs against labels (STS), and triplets, by vectors or by a reranker."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.scoring.pairwise import PAIRWISE

from ...tasks import scores
from ..blocks import take
from ..data import ExampleSet
from ..encoding import PairScorer
from ..retriever import Retriever
from ..search.reranking import distinct


def sts(model: Retriever | PairScorer, examples: ExampleSet) -> dict[str, float]:
    """Correlations of the similarity of two texts with a label.

    Args:
        model: an embedding model, or a reranker.
        examples: two texts each, with a label.

    Returns:
        "pearson" and "spearman" of the model's own similarity or score; of vectors also
        "pearson_cosine" and so on for every similarity, named as in sentence-transformers.

    Raises:
        UserError: examples of another form, or labels that are all equal.
    """
    if examples.targets != "label" or examples.most_texts != 2:
        raise UserError(f"{examples.name}: sts needs two texts and a label in each row")
    labels = np.array([example.target[0] for example in examples.examples])
    if np.ptp(labels) == 0:
        raise UserError(f"{examples.name}: all labels are {labels[0]:g}; correlations need others")
    if not isinstance(model, PairScorer):
        model = model.symmetric()
    by_name = _similarities(model, [(e.texts[0], e.texts[1]) for e in examples.examples])
    return {
        f"{metric}{name}": function(values, labels)
        for name, values in by_name.items()
        for metric, function in (("pearson", scores.pearson), ("spearman", scores.spearman))
    }


def triplets(model: Retriever | PairScorer, examples: ExampleSet) -> dict[str, float]:
    """Share of (query, positive, negative) whose positive is more similar than the negative.

    Args:
        model: an embedding model, or a reranker.
        examples: a query, a positive and at least one negative each; each negative counts.

    Returns:
        "accuracy" by the model's own similarity or score; of vectors also
        "accuracy_cosine" and so on for every similarity.

    Raises:
        UserError: examples of another form.
    """
    if examples.targets != "none" or min(len(e.texts) for e in examples.examples) < 3:
        raise UserError(f"{examples.name}: triplets need a query, a positive and a negative")
    positives = [(e.texts[0], e.texts[1]) for e in examples.examples for _ in e.texts[2:]]
    negatives = [(e.texts[0], text) for e in examples.examples for text in e.texts[2:]]
    by_name = _similarities(model, [*positives, *negatives])
    count = len(positives)
    return {
        f"accuracy{name}": float((values[:count] > values[count:]).mean())
        for name, values in by_name.items()
    }


def _similarities(
    model: Retriever | PairScorer, pairs: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """Similarities of pairs [n] by the ending of a metric's name; "" is the model's own."""
    if isinstance(model, PairScorer):
        return {"": np.concatenate([*model.blocks(pairs)])}
    firsts, first_of = distinct(first for first, _ in pairs)
    seconds, second_of = distinct(second for _, second in pairs)
    a = take(model.encode(firsts, "query"), first_of)
    b = take(model.encode(seconds, "document"), second_of)
    own = {"": model.pairs(a, b)}
    if not isinstance(a, np.ndarray):
        return own
    first, second = jnp.asarray(a), jnp.asarray(b)
    return own | {f"_{name}": np.asarray(of(first, second)) for name, of in PAIRWISE.items()}
