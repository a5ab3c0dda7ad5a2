"""Linear models of bags of words by scikit-learn: a baseline for pretrained encoders."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from ..finetune.config import FinetuneConfig
from ..finetune.data import Data
from ..tasks import TokenClassification
from ..tasks.read import read
from ..tasks.text_task import TextTask

PENALTIES = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of regularisation for cross-validation on the training data."""

FOLDS = 3


def metrics(config: FinetuneConfig, data: Data) -> dict[str, float]:
    """Fit a model and return the task's metrics on the validation examples.

    Raises `UserError` for tasks without such a model.
    """
    kinds = {"classification": _classes, "regression": _number, "tokens": _tags}
    if data.task.kind not in kinds:
        raise UserError(f"no bag of words for {data.task.kind}; leave the side words out")
    outputs = kinds[data.task.kind](config, data)
    return data.task.metrics(data.validation, outputs)


def _classes(config: FinetuneConfig, data: Data) -> list[list[np.ndarray]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    train, validation = _features(config, data)
    model = GridSearchCV(LogisticRegression(max_iter=1000), {"C": PENALTIES}, cv=FOLDS)
    model.fit(train, [example.target for example in data.train])
    scores = np.full((len(data.validation), data.task.outputs), -np.inf, np.float32)
    scores[:, model.classes_] = model.predict_log_proba(validation)
    return [[row] for row in scores]


def _number(config: FinetuneConfig, data: Data) -> list[list[np.ndarray]]:
    from sklearn.linear_model import RidgeCV

    train, validation = _features(config, data)
    model = RidgeCV(alphas=[1 / c for c in PENALTIES], cv=FOLDS)
    model.fit(train, [example.target for example in data.train])
    return [[np.array([x], np.float32)] for x in model.predict(validation)]


def _features(config: FinetuneConfig, data: Data) -> tuple[Any, Any]:
    """TF-IDF of words and pairs of words; for two texts also their product and difference."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [_texts(path, data) for path in (config.train, config.validation)]
    bag = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    bag.fit([text for record in texts[0] for text in record])

    def matrix(records: Sequence[tuple[str, ...]]) -> Any:
        columns = [bag.transform(column) for column in zip(*records, strict=True)]
        if len(columns) == 2:
            first, second = columns
            common = first.multiply(second)
            columns += [common, abs(first - second), sparse.csr_matrix(common.sum(1))]
        return sparse.hstack(columns).tocsr()

    return matrix(texts[0]), matrix(texts[1])


def _texts(path: str, data: Data) -> list[tuple[str, ...]]:
    task = data.task
    assert isinstance(task, TextTask)  # as all tasks of `_features`
    return [
        tuple(record.text(c, task.allow_empty) for c in task.columns) for record in read([path])
    ]


def _tags(config: FinetuneConfig, data: Data) -> list[list[np.ndarray]]:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    task = data.task
    assert isinstance(task, TokenClassification)  # `metrics` checks the kind
    vectorizer = DictVectorizer()
    words = [facts for example in data.train for facts in _around(example.source.words)]
    tags = [task.labels.index(t) for example in data.train for t in example.source.tags]
    model = LogisticRegression(C=PENALTIES[2], max_iter=200)
    model.fit(vectorizer.fit_transform(words), tags)
    outputs = []
    for example in data.validation:
        predicted = model.predict(vectorizer.transform([*_around(example.source.words)]))
        logits = [np.zeros((len(ids), task.outputs), np.float32) for ids in example.sequences]
        for (sequence, token), tag in zip(example.source.places, predicted, strict=True):
            if sequence >= 0:
                logits[sequence][token, tag] = 1
        outputs.append(logits)
    return outputs


def _around(words: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield features of each word: its neighbours, its shape and its ends."""
    padded = ["<", *words, ">"]
    for before, word, after in zip(padded, words, padded[2:], strict=False):
        yield {
            "word": word.lower(),
            "before": before.lower(),
            "after": after.lower(),
            "first": word[:3].lower(),
            "last": word[-3:].lower(),
            "capital": word[:1].isupper(),
            "capitals": word.isupper(),
            "digits": any(c.isdigit() for c in word),
        }
