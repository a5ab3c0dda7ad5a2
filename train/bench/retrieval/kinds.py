"""What distinguishes the kinds of training that the comparison knows."""

import dataclasses
from collections.abc import Callable, Sequence

from . import examples
from .examples import Examples
from .settings import Kind
from .source import Pair, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """A kind of training."""

    trains: str
    """Kind of the run, a key of `session.TRAINEES`."""
    examples: Callable[[Source, Sequence[Pair]], Examples]
    """Function from pairs to what is trained on."""
    loss: str = "multiple-negatives-ranking"
    """Name of the loss; its options are at their defaults."""
    cached: bool = True
    """Whether sentence-transformers has a gradient cache for this loss."""


KINDS: dict[Kind, Facts] = {
    "embedding": Facts(trains="embedding", examples=examples.pairs),
    "sparse": Facts(trains="sparse", examples=examples.pairs),
    "late-interaction": Facts(trains="late-interaction", examples=examples.pairs),
    "late-interaction-distilled": Facts(
        trains="late-interaction", examples=examples.scored, loss="distill-kl", cached=False
    ),
    "reranker": Facts(
        trains="reranker", examples=examples.labelled, loss="binary-cross-entropy", cached=False
    ),
}
