"""Models of this project in mteb 2, the library of embedding benchmarks.

    import mteb
    from modernbert_jax.train.retrieval.evaluation.mteb_model import MtebEncoder

    model = MtebEncoder("gte-modernbert-base")
    mteb.evaluate(model, mteb.get_tasks(tasks=["SciFact"]))

Nothing of mteb is imported before a model is asked for its description. The package comes with
`pip install 'modernbert-jax[mteb]'`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modernbert_jax.scoring import SIMILARITIES
from modernbert_jax.scoring.pairwise import PAIRWISE

from ..encoding import PairScorer, Side, TextEncoder

Batches = Iterable[Mapping[str, Sequence[str]]]
"""Batches of mteb: the texts are in "text"."""


class MtebEncoder:
    """An embedding model as mteb's `EncoderProtocol`."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        **options: Any,
    ):
        """Load a model.

        Args:
            model_name: a directory of any format, or the name of a model on the hub.
            revision: for the description; the hub's newest files are loaded.
            device: not used: all devices of this process compute.
            options: of `TextEncoder.load`, such as `dtype`, `query` and `document`.

        Raises:
            UserError: no such embedding model.
        """
        self.encoder = TextEncoder.load(model_name, **options)
        self._name, self._revision = model_name, revision

    @property
    def mteb_model_meta(self) -> Any:
        """The description of the model, mteb's `ModelMeta`."""
        return _meta(self._name, self._revision, similarity=self.encoder.similarity)

    def encode(self, inputs: Batches, *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Vectors of texts in order: float32 [n, E].

        Args:
            inputs: batches of texts.
            prompt_type: "query" or "document", whose prompt of the model is used; None is neither.
        """
        encoder, side = self.encoder, _side(prompt_type)
        if side is None:
            encoder, side = encoder.symmetric(), "document"
        return encoder.encode(_texts(inputs), side)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Similarities of vectors [n, E] and [m, E]: float32 [n, m]."""
        a, b = (np.atleast_2d(np.asarray(x, np.float32)) for x in (embeddings1, embeddings2))
        return SIMILARITIES[self.encoder.similarity](a, b)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Similarities of pairs of vectors [n, E]: float32 [n]."""
        a, b = (np.atleast_2d(np.asarray(x, np.float32)) for x in (embeddings1, embeddings2))
        return np.asarray(PAIRWISE[self.encoder.similarity](a, b))  # type: ignore[arg-type]


class MtebReranker:
    """A reranker as mteb's `CrossEncoderProtocol`."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        **options: Any,
    ):
        """Load a reranker; arguments as `MtebEncoder`, options of `PairScorer.load`."""
        self.scorer = PairScorer.load(model_name, **options)
        self._name, self._revision = model_name, revision

    @property
    def mteb_model_meta(self) -> Any:
        """The description of the model, mteb's `ModelMeta`."""
        return _meta(self._name, self._revision, is_cross_encoder=True)

    def predict(self, inputs1: Batches, inputs2: Batches, **_: Any) -> np.ndarray:
        """Scores of pairs of a query and a document, in order: float32 [n]."""
        pairs = zip(_texts(inputs1), _texts(inputs2), strict=True)
        return np.concatenate([np.zeros(0, np.float32), *self.scorer.blocks(pairs)])


def _side(prompt_type: Any) -> Side | None:
    """The side of a prompt type of mteb, which is an enumeration of texts."""
    value = getattr(prompt_type, "value", prompt_type)
    sides: dict[Any, Side | None] = {"query": "query", "document": "document"}
    return sides.get(value)


def _texts(inputs: Batches) -> Iterator[str]:
    return (text for batch in inputs for text in batch["text"])


def _meta(
    name: str, revision: str | None, similarity: str | None = None, is_cross_encoder: bool = False
) -> Any:
    """A description with a name that mteb accepts: owner/model."""
    from mteb.models.model_meta import ModelMeta

    words = [word for word in name.strip("/").split("/") if word not in ("", ".", "..")]
    facts: dict[str, Any] = {
        "name": "/".join(words[-2:] if len(words) > 1 else ["modernbert-jax", *words]),
        "revision": revision or "local",
        "similarity_fn_name": similarity,
    }
    if is_cross_encoder:
        facts["model_type"] = ["cross-encoder"]
    return ModelMeta.create_empty(overwrites=facts)
