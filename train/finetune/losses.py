"""The losses of tasks: the place of an example's target in packed rows, and its loss there.

A target has the place of its logits: that of its document [B, S], or of its token [B, T]. All
losses are sums with a count, so that the mean over a batch does not depend on how the batch is
packed or divided into microbatches.
"""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..engine.objective import Sums
from ..tasks import IGNORED, Task

_NOTHING = -1e30
"""Logit of what does not count: finite, so that an empty document has no NaN in its gradient."""


class Place(NamedTuple):
    """The place of a sequence in a microbatch."""

    row: int
    """Number of the row, from 0."""
    document: int
    """Number of the document in the row, from 0."""
    start: int
    """First token in the row."""
    group: int
    """Number of its example in the microbatch, from 0."""


class TaskLoss(Protocol):
    """Targets and loss of a kind of task."""

    level: Literal["document", "token"]
    """Whether logits are those of pooled documents [B, S, K] or of tokens [B, T, K]."""
    grouped: bool
    """Whether the sequences of an example must be in one microbatch."""

    def empty(self, rows: int, places: int) -> np.ndarray:
        """Targets of a microbatch without examples; `places` are documents or tokens of a row."""

    def put(
        self, targets: np.ndarray, weights: np.ndarray, target: Any, sequence: int, at: Place
    ) -> None:
        """Writes the target of an example's sequence, and its weight [B, S] or [B, T]."""

    def sums(
        self, logits: jax.Array, targets: jax.Array, weights: jax.Array, segment_ids: jax.Array
    ) -> Sums:
        """The loss in nats (squares for regression) of float32 logits."""


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """One class of K, for documents or tokens; as PyTorch's, with smoothing and class weights."""

    level: Literal["document", "token"] = "document"
    smoothing: float = 0.0
    """Share of the probability that is spread evenly over all classes."""
    class_weights: tuple[float, ...] = ()
    """The mean is weighted with that of the target; none are all 1."""
    grouped: ClassVar[bool] = False

    def empty(self, rows: int, places: int) -> np.ndarray:
        return np.zeros((rows, places), np.int32)

    def put(self, targets, weights, target, sequence: int, at: Place) -> None:
        if self.level == "document":
            targets[at.row, at.document], weights[at.row, at.document] = target, 1
            return
        target = np.asarray(target[sequence])
        span = slice(at.start, at.start + len(target))
        labelled = target != IGNORED
        targets[at.row, span] = np.where(labelled, target, 0)
        weights[at.row, span] = labelled

    def sums(self, logits, targets, weights, segment_ids) -> Sums:
        classes = logits.shape[-1]
        of_class = jnp.ones(classes) if not self.class_weights else jnp.array(self.class_weights)
        negative = -jax.nn.log_softmax(logits)
        hit = jax.nn.one_hot(targets, classes)
        wanted = (1 - self.smoothing) * hit + self.smoothing / classes
        losses = (negative * of_class * wanted).sum(-1)
        return Sums((losses * weights).sum(), ((hit * of_class).sum(-1) * weights).sum())


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """Any of K classes: the mean of K yes-or-no questions."""

    classes: int
    positive_weights: tuple[float, ...] = ()
    """Of the yes of each class beside its no; none are all 1."""
    level: ClassVar[str] = "document"
    grouped: ClassVar[bool] = False

    def empty(self, rows: int, places: int) -> np.ndarray:
        return np.zeros((rows, places, self.classes), np.float32)

    def put(self, targets, weights, target, sequence: int, at: Place) -> None:
        targets[at.row, at.document], weights[at.row, at.document] = target, 1

    def sums(self, logits, targets, weights, segment_ids) -> Sums:
        of_class = jnp.array(self.positive_weights or (1.0,))
        losses = optax.sigmoid_binary_cross_entropy(logits, targets)
        losses = (losses * jnp.where(targets > 0, of_class, 1.0)).mean(-1)
        return Sums((losses * weights).sum(), weights.sum())


@dataclasses.dataclass(frozen=True)
class SquaredError:
    """A number."""

    level: ClassVar[str] = "document"
    grouped: ClassVar[bool] = False

    def empty(self, rows: int, places: int) -> np.ndarray:
        return np.zeros((rows, places), np.float32)

    def put(self, targets, weights, target, sequence: int, at: Place) -> None:
        targets[at.row, at.document], weights[at.row, at.document] = target, 1

    def sums(self, logits, targets, weights, segment_ids) -> Sums:
        return Sums((jnp.square(logits[..., 0] - targets) * weights).sum(), weights.sum())


@dataclasses.dataclass(frozen=True)
class Spans:
    """First and last token of an answer, each among all tokens of its window; the mean of both."""

    documents: int
    """In a row at most."""
    level: ClassVar[str] = "token"
    grouped: ClassVar[bool] = False

    def empty(self, rows: int, places: int) -> np.ndarray:
        return np.full((rows, self.documents, 2), IGNORED, np.int32)

    def put(self, targets, weights, target, sequence: int, at: Place) -> None:
        targets[at.row, at.document] = at.start + np.asarray(target[sequence], np.int32)

    def sums(self, logits, targets, weights, segment_ids) -> Sums:
        numbers = jnp.arange(1, self.documents + 1)
        member = (segment_ids[:, None] == numbers[None, :, None])[..., None]  # [B, S, T, 1]
        there = targets[..., 0] != IGNORED
        total = jax.nn.logsumexp(jnp.where(member, logits[:, None], _NOTHING), axis=2)
        at = jnp.where(there[..., None], targets, 0)
        chosen = jnp.take_along_axis(logits, at, axis=1)  # [B, S, 2]
        losses = jnp.where(there, (total - chosen).mean(-1), 0.0)
        return Sums(losses.sum(), there.sum(dtype=jnp.float32))


@dataclasses.dataclass(frozen=True)
class Choices:
    """The right one of an example's sequences, wherever in the microbatch they lie."""

    level: ClassVar[str] = "document"
    grouped: ClassVar[bool] = True

    def empty(self, rows: int, places: int) -> np.ndarray:
        # Groups count from 1: 0 is that of places without a document.
        return np.zeros((rows, places), np.int32)

    def put(self, targets, weights, target, sequence: int, at: Place) -> None:
        targets[at.row, at.document] = at.group + 1
        weights[at.row, at.document] = sequence == target

    def sums(self, logits, targets, weights, segment_ids) -> Sums:
        scores, groups, right = (x.reshape(-1) for x in (logits[..., 0], targets, weights))
        count = groups.size + 1
        scores = jnp.where(groups > 0, scores, _NOTHING)
        top = jax.lax.stop_gradient(jax.ops.segment_max(scores, groups, count))[groups]
        total = jax.ops.segment_sum(jnp.exp(scores - top), groups, count)[groups]
        losses = jnp.log(jnp.where(right > 0, total, 1.0)) + top - scores
        return Sums(jnp.where(right > 0, losses * right, 0.0).sum(), right.sum())


def of_task(
    task: Task, documents: int, smoothing: float = 0.0, weights: tuple[float, ...] = ()
) -> TaskLoss:
    """Build the loss of a task whose rows have at most so many documents.

    Args:
        task: with its labels.
        documents: in a row, at most.
        smoothing: share of the probability that is spread evenly over all classes.
        weights: of the classes; none are all 1.
    """
    return {
        "classification": lambda: CrossEntropy("document", smoothing, weights),
        "tokens": lambda: CrossEntropy("token", smoothing, weights),
        "multilabel": lambda: BinaryCrossEntropy(task.outputs, weights),
        "regression": SquaredError,
        "questions": lambda: Spans(documents),
        "choice": Choices,
    }[task.kind]()
