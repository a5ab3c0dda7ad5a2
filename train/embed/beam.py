"""Vectors in pipelines of Apache Beam: a model handler for `RunInference`.

    from apache_beam.ml.inference.base import RunInference
    from modernbert_jax.train.embed.beam import TextEmbedding

    texts | RunInference(TextEmbedding(model="gs://bucket/model"))     # (id, text) -> (id, vector)

A worker loads the model once. What Beam gives it at a time are texts of so many tokens, which are
packed into full rows.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from modernbert_jax.errors import UserError

from .config import WINDOW_TOKENS, Embedding


def _model_handler() -> Any:
    """Beam's base class, or any other where the extra `beam` is not installed."""
    try:
        from apache_beam.ml.inference.base import ModelHandler
    except ImportError:
        return object
    return ModelHandler


_ModelHandler: Any = _model_handler()

_CHARACTERS = 4
"""Characters of a token, about."""

Pair = tuple[str, str]
"""Id and text."""


def weight(pair: Pair) -> int:
    """Tokens of a text, about, with its special ones."""
    return len(pair[1]) // _CHARACTERS + 2


class TextEmbedding(_ModelHandler):
    """Turns pairs of id and text into pairs of id and vector, as `embed` does.

    A vector is a float32 array [dims]; of a late-interaction model [tokens, dims], and of a sparse
    one a pair of indices and values.
    """

    def __init__(self, model: str, batch_weight: int = WINDOW_TOKENS, **options: Any):
        """Describe the model; workers load it.

        Args:
            model: folder or name on the hub, that workers can read.
            batch_weight: tokens of the texts that are packed together.
            options: others of `Embedding` that say how texts become vectors.

        Raises:
            UserError: Beam is not installed, or an option is wrong.
        """
        if _ModelHandler is object:
            raise UserError(
                "Apache Beam is not installed; install it with `pip install 'modernbert-jax[beam]'`"
            )
        super().__init__()
        self._options = Embedding(model=model, input=("-",), output="-", **options)
        self._batch_weight = batch_weight

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """Batches of so many tokens; a bundle's last one has less."""
        target = self._batch_weight
        return {
            "min_batch_size": target,
            "max_batch_size": target,
            "element_size_fn": weight,
        }

    def load_model(self) -> Any:
        """Load the model on the first device of this worker."""
        from . import models

        return models.load(self._options)

    def run_inference(
        self, batch: Sequence[Pair], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[tuple[str, Any]]:
        """Pairs of id and vector, in order."""
        vectors = model.encoders[0].encode((text for _, text in batch), model.side)
        return [(name, vector) for (name, _), vector in zip(batch, vectors, strict=True)]

    def get_metrics_namespace(self) -> str:
        """Name of the metrics."""
        return "modernbert_jax"
