"""Splits keep the shares of labels, keep equal texts together and ignore order; class weights."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import class_weight

from modernbert_jax import UserError
from modernbert_jax.train.tasks import (
    IGNORED,
    Classification,
    Example,
    QuestionAnswering,
    Record,
    Records,
    TokenClassification,
    balanced_weights,
    positive_weights,
    split,
)

TASK = Classification(labels=("a", "b", "c"))


def records(labels, **more) -> Records:
    rows = [{"text": f"text {i}", "label": v, **more} for i, v in enumerate(labels)]
    return Records([Record(f"x:{i}", row) for i, row in enumerate(rows)], {"label": ("a",)})


def test_a_missing_column_is_named_once():
    rows = records("ab" * 20)
    for column in ("label", "text"):
        bare = Records(
            [Record(r.place, {k: v for k, v in r.values.items() if k != column}) for r in rows]
        )
        with pytest.raises(UserError, match=rf"^x: has no column '{column}'; it has \w+$"):
            split(bare, TASK, 0.1)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"x": 1}, "'tokens'; it has x; x: has no column 'ner_tags'"),
        ({"tokens": ["a"]}, "'ner_tags'; it has tokens"),
        ({"text": "a"}, "'entities'; it has text"),
    ],
)
def test_columns_of_tokens_are_words_or_a_text(row, wanted):
    rows = Records([Record(f"x:{i}", row) for i in range(20)])
    task = TokenClassification(labels=("O", "B-X", "I-X"))
    for call in (lambda: split(rows, task, 0.1), lambda: TokenClassification().with_labels(rows)):
        with pytest.raises(UserError) as error:
            call()
        assert wanted in str(error.value)


def content(result):
    return sorted(r.values["text"] for r in result)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=8, max_size=80),
    st.floats(0.1, 0.9),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_split(labels, fraction, seed, random):
    given_records = records(labels)
    training, validation = split(given_records, TASK, fraction, seed)
    assert training.names == validation.names == given_records.names
    assert sorted(content(training) + content(validation)) == content(given_records)
    counts = collections.Counter(labels)
    held = collections.Counter(r.values["label"] for r in validation)
    for label, count in counts.items():
        assert abs(held[label] - fraction * count) <= 1
        assert held[label] < count
    # A class of one record cannot be divided.
    assert (
        abs(len(validation) - fraction * len(labels))
        <= 0.5 + sum(n == 1 for n in counts.values()) + 2
    )
    shuffled = [*given_records]
    random.shuffle(shuffled)
    again = split(Records(shuffled), TASK, fraction, seed)
    assert [content(side) for side in again] == [content(training), content(validation)]


def test_records_with_the_same_text_stay_together():
    rows = [*records("abab" * 10), *records("abab" * 10, id="other")]
    training, validation = split(Records(rows), TASK, 0.25)
    assert not {*content(training)} & {*content(validation)}
    assert len(validation) == 20


def test_seeds_differ_and_order_is_kept():
    result = [split(records("ab" * 50), TASK, 0.2, seed)[1] for seed in (0, 1)]
    assert content(result[0]) != content(result[1])
    places = [int(r.place[2:]) for r in result[0]]
    assert places == sorted(places)


def test_other_tasks():
    rows = [
        {
            "question": f"q{i}",
            "context": "c",
            "answers": [{"text": "c", "answer_start": 0}] * (i % 2),
        }
        for i in range(20)
    ]
    _, validation = split(
        Records(Record(f"x:{i}", r) for i, r in enumerate(rows)),
        QuestionAnswering(no_answer=True),
        0.4,
    )
    assert sum(bool(r.values["answers"]) for r in validation) == 4 == len(validation) / 2
    words = [{"id": i, "tokens": ["a", str(i // 2)], "ner_tags": ["O", "O"]} for i in range(20)]
    training, validation = split(
        Records(Record(f"x:{i}", r) for i, r in enumerate(words)), TokenClassification(), 0.2
    )
    assert len(validation) == 4
    both = [{r.values["tokens"][1] for r in side} for side in (training, validation)]
    assert not both[0] & both[1]


@pytest.mark.parametrize(
    "rows,fraction,want",
    [
        (records("ab"), 1.0, "validation_split is 1.0"),
        (records("ab"), 0.1, "nothing to validate on"),
        (records(["a", None]), 0.5, "x:1: 'label' is empty"),
    ],
)
def test_bad_splits(rows, fraction, want):
    with pytest.raises(UserError, match=want):
        split(rows, TASK, fraction)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_balanced_weights(targets):
    examples = [Example(id="", sequences=(), target=t) for t in targets]
    result = balanced_weights(examples, 5)
    classes = np.unique(targets)
    want = class_weight.compute_class_weight("balanced", classes=classes, y=targets)
    np.testing.assert_allclose(result[classes], want, rtol=1e-6)
    assert result[4] == 1 and result.dtype == np.float32


def test_balanced_weights_of_tokens():
    target = (np.array([IGNORED, 0, 1, 1]), np.array([1, IGNORED]))
    result = balanced_weights([Example(id="", sequences=(), target=target)], 2)
    np.testing.assert_allclose(result, [4 / 2 / 1, 4 / 2 / 3])


def test_positive_weights():
    rows = [[1, 0, 1], [0, 0, 1], [0, 0, 1]]
    examples = [Example(id="", sequences=(), target=np.array(r, np.float32)) for r in rows]
    assert positive_weights(examples).tolist() == [2, 1, 1]
