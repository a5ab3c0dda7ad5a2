"""The loss of predictions that do not look at the texts: what a model has to beat."""

from collections.abc import Sequence

import numpy as np

from ..tasks import Example, class_counts
from . import losses


def constant_loss(loss: losses.TaskLoss, examples: Sequence[Example], outputs: int) -> float:
    """Mean loss of the best constant prediction; of a uniform one for spans and options.

    Args:
        loss: the loss in training, with its smoothing and weights of classes.
        examples: the training examples.
        outputs: width of the classifier.
    """
    targets = [example.target for example in examples]
    match loss:
        case losses.CrossEntropy():
            counts = class_counts(examples, outputs)
            weights = np.array(loss.class_weights or [1.0] * outputs)
            smooth = loss.smoothing * counts.sum() / outputs
            wanted = weights * ((1 - loss.smoothing) * counts + smooth)
            return float(_cross_entropy(wanted) / max((weights * counts).sum(), 1e-9))
        case losses.BinaryCrossEntropy():
            ones = np.sum(targets, axis=0, dtype=np.float64)
            weighted = ones * np.array(loss.positive_weights or 1.0)
            pairs = np.stack([weighted, len(targets) - ones])
            return float(np.mean([_cross_entropy(pair) for pair in pairs.T]) / len(targets))
        case losses.SquaredError():
            return float(np.var(targets))
        case losses.Spans():
            lengths = [len(ids) for example in examples for ids in example.sequences]
            return float(np.mean(np.log(lengths)))
        case losses.Choices():
            return float(np.mean([np.log(len(example.sequences)) for example in examples]))
    raise NotImplementedError(type(loss).__name__)


def _cross_entropy(wanted: np.ndarray) -> float:
    """Sum of -w log p, with p the shares of the wanted weights w [K]."""
    wanted = wanted[wanted > 0]
    return float(-(wanted * np.log(wanted / wanted.sum())).sum())
