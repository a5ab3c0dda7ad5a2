"""Losses of tasks, and the layout of their targets in packed rows.

A target is at the position of its logits: that of its document [B, S] or of its token [B, T].
Losses are sums with a count, so the mean over a batch does not depend on packing or microbatches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..engine.objective import Sums
from ..tasks import IGNORED, Task

_NOTHING = -1e30
"""Logit of masked positions; finite, so that empty documents have no NaN in their gradient."""


class Place(NamedTuple):
    """Position of a sequence in a microbatch."""

    row: int
    """Number of the row, from 0."""
    document: int
    """Number of the document in the row, from 0."""
    start: int
    """First token in the row."""
    group: int
    """Number of its example in the microbatch, from 0."""


class TaskLoss(Protocol):
    """Protocol of a task's loss."""

    @property
    def level(self) -> Literal["document", "token"]:
        """Level of the logits: pooled documents [B, S, K] or tokens [B, T, K]."""

    @property
    def grouped(self) -> bool:
        """Whether all sequences of an example must be in one microbatch."""

    def empty(self, rows: int, places: int) -> np.ndarray:
        """Return targets of an empty microbatch with `places` documents or tokens per row."""

    def put(
        self, targets: np.ndarray, weights: np.ndarray, target: Any, sequence: int, at: Place
    ) -> None:
        """Write the target of an example's sequence, and its weight [B, S] or [B, T], in place."""

    def sums(
        self, logits: jax.Array, targets: jax.Array, weights: jax.Array, segment_ids: jax.Array
    ) -> Sums:
        """Return the sum of losses, in nats (regression: squares), and their count; float32."""


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy over K classes of documents or tokens, defined as in PyTorch."""

    level: Literal["document", "token"] = "document"
    """Level of the logits: documents or tokens."""
    smoothing: float = 0.0
    """Label smoothing: the share of probability spread evenly over all classes; 0 disables it."""
    class_weights: tuple[float, ...] = ()
    """Weights of the classes, in the loss and in its mean; empty weighs all equally."""
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
    """Binary cross-entropy of a multi-label task, averaged over K labels."""

    classes: int
    """Number of labels K."""
    positive_weights: tuple[float, ...] = ()
    """Weight of positives relative to negatives, per class; empty weighs both equally."""
    level: ClassVar[Literal["document", "token"]] = "document"
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
    """Squared error of a regression."""

    level: ClassVar[Literal["document", "token"]] = "document"
    grouped: ClassVar[bool] = False

    def empty(self, rows: int, places: int) -> np.ndarray:
        return np.zeros((rows, places), np.float32)

    def put(self, targets, weights, target, sequence: int, at: Place) -> None:
        targets[at.row, at.document], weights[at.row, at.document] = target, 1

    def sums(self, logits, targets, weights, segment_ids) -> Sums:
        return Sums((jnp.square(logits[..., 0] - targets) * weights).sum(), weights.sum())


@dataclasses.dataclass(frozen=True)
class Spans:
    """Cross-entropy of an answer's first and last token over its window; the mean of both."""

    documents: int
    """Maximum number of documents in a row."""
    level: ClassVar[Literal["document", "token"]] = "token"
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
    """Cross-entropy over the sequences of an example, anywhere in the microbatch."""

    level: ClassVar[Literal["document", "token"]] = "document"
    grouped: ClassVar[bool] = True

    def empty(self, rows: int, places: int) -> np.ndarray:
        # Groups count from 1; 0 marks places without a document.
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
    """Build the loss of a task.

    Args:
        task: the task, with its labels.
        documents: maximum number of documents in a row.
        smoothing: label smoothing; 0 disables it.
        weights: weights of the classes; empty weighs all equally.
    """
    losses: dict[str, Callable[[], TaskLoss]] = {
        "classification": lambda: CrossEntropy("document", smoothing, weights),
        "tokens": lambda: CrossEntropy("token", smoothing, weights),
        "multilabel": lambda: BinaryCrossEntropy(task.outputs, weights),
        "regression": SquaredError,
        "questions": lambda: Spans(documents),
        "choice": Choices,
    }
    return losses[task.kind]()
