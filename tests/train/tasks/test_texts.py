"""Tasks on texts and pairs: labels to targets, logits to metrics and predictions."""

import json

import corpus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from modernbert_jax import UserError
from modernbert_jax.train.tasks import (
    TASKS,
    Classification,
    MultiLabel,
    MultipleChoice,
    Record,
    Records,
    Regression,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def records(*rows, names=None) -> Records:
    return Records([Record(f"x.jsonl:{i}", row) for i, row in enumerate(rows, 1)], names)


def texts(*labels, key="label") -> Records:
    return records(*({"text": f"ba {corpus.WORDS[i]}", key: v} for i, v in enumerate(labels)))


def logits(*rows):
    """Logits of examples with one sequence each."""
    return [[np.array(row, np.float32)] for row in rows]


def message(function, *arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_of_tasks():
    assert [*TASKS] == [
        "classification",
        "multilabel",
        "regression",
        "tokens",
        "questions",
        "choice",
    ]
    for name, task in TASKS.items():
        assert task.kind == name and task().best_metric in task().metric_names


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values,want",
    [
        (("no", "yes", "no"), ("no", "yes")),
        ((10, 9, 10), ("9", "10")),
        (("10", "9"), ("9", "10")),
        ((True, False), ("false", "true")),
        ((1.0, 0.0), ("0", "1")),
        (("b", "a", None), ("a", "b")),
    ],
)
def test_labels_are_found_and_sorted(values, want):
    task = Classification().with_labels(texts(*values))
    assert task.labels == task.label_names == want and task.outputs == len(want)


def test_labels_that_are_given_or_declared_come_first(tokenizer):
    result = records({"text": "ba", "label": "yes"}, names={"label": ("yes", "no")})
    assert Classification().with_labels(result).labels == ("yes", "no")
    assert Classification(labels=("no", "yes")).with_labels(result).labels == ("no", "yes")


@pytest.mark.parametrize(
    "labels,value,want",
    [
        (("no", "yes"), "yes", 1),
        (("no", "yes"), 1, 1),
        (("no", "yes"), "1", 1),
        (("no", "yes"), True, 1),
        (("false", "true"), True, 1),
        (("1", "0"), 0, 1),
        (("1", "0"), 1.0, 0),
    ],
)
def test_targets(tokenizer, labels, value, want):
    (example,) = Classification(labels=labels).examples(texts(value), tokenizer)
    assert example.target == want and type(example.target) is int
    assert example.id == "x.jsonl:1"
    assert example.sequences[0].dtype == np.int32
    assert example.sequences[0].tolist() == tokenizer.encode(["ba baba"])[0]


def test_pairs_templates_and_ids(tokenizer):
    result = records({"id": 7, "a": {"b": "ba ce"}, "c": "di", "d": 5, "label": "x"})
    task = Classification(columns=("a.b", "{c} {d}!"), labels=("x", "y"), max_length=64)
    (example,) = task.examples(result, tokenizer)
    assert example.id == "7"
    assert example.sequences[0].tolist() == tokenizer.encode_pairs([("ba ce", "di 5!")])[0]
    (short,) = Classification(columns=("a.b",), labels=("x", "y"), max_length=8).examples(
        records({"a": {"b": " ".join(corpus.WORDS)}, "label": "x"}), tokenizer
    )
    assert len(short.sequences[0]) == 8 and short.sequences[0][-1] == tokenizer.sep_id


def test_without_labels(tokenizer):
    task = Classification(labels=("x", "y"))
    (example,) = task.examples(records({"text": "ba"}), tokenizer, labelled=False)
    assert example.target is None
    assert task.predictions([example], logits([0, 1]))[0]["label"] == "y"
    assert message(task.metrics, [example], logits([0, 1])).endswith("no label to measure by")


# --- from logits -------------------------------------------------------------------------------


def test_classification(tokenizer):
    task = Classification(labels=("a", "b", "c"))
    examples = task.examples(texts("a", "b", "c", "b"), tokenizer)
    outputs = logits([2, 0, 0], [0, 1, 0], [0, 3, 0], [0, 0.5, 0])
    result = task.metrics(examples, outputs)
    assert {*result} == {*task.metric_names}
    assert result["accuracy"] == 0.75
    assert result["f1_macro"] == pytest.approx(
        metrics.f1_score([0, 1, 2, 1], [0, 1, 1, 1], average="macro")
    )
    first = task.predictions(examples, outputs)[0]
    weight = np.exp(2) / (np.exp(2) + 2)
    assert first["label"] == "a" and first["score"] == pytest.approx(weight)
    assert first["scores"] == pytest.approx(
        {"a": weight, "b": (1 - weight) / 2, "c": (1 - weight) / 2}
    )
    json.dumps(first)


def test_two_labels_have_a_positive_one(tokenizer):
    task = Classification(labels=("no", "yes"), best_metric="f1", group_column="{q}")
    rows = [
        {"text": "ba", "q": q, "label": v} for q, v in zip("aab", ("yes", "no", "yes"), strict=True)
    ]
    examples = task.examples(records(*rows), tokenizer)
    result = task.metrics(examples, logits([0, 1], [1, 0], [1, 0]))
    assert {*result} == {*task.metric_names}
    assert result["f1"] == pytest.approx(2 / 3) and result["auroc"] == pytest.approx(0.75)
    assert result["exact_match"] == 0.5 and result["f1a"] == result["f1"]


def test_regression(tokenizer):
    task = Regression()
    examples = task.examples(texts(1, "2.5", 4.0), tokenizer)
    assert [e.target for e in examples] == [1.0, 2.5, 4.0]
    result = task.metrics(examples, logits([1], [3], [5]))
    assert {*result} == {*task.metric_names} and result["spearman"] == pytest.approx(1)
    assert result["mean_squared_error"] == pytest.approx((0 + 0.25 + 1) / 3)
    assert task.predictions(examples, logits([1], [3], [5]))[1] == {"id": "x.jsonl:2", "score": 3.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
def test_multilabel(tokenizer, seed, classes, count):
    rng = np.random.default_rng(seed)
    actual = rng.integers(0, 2, (count, classes))
    names = [f"l{i}" for i in range(classes)]
    rows = texts(
        *([n for n, there in zip(names, row, strict=True) if there] for row in actual), key="labels"
    )
    task = MultiLabel(labels=tuple(names))
    examples = task.examples(rows, tokenizer)
    np.testing.assert_array_equal(np.stack([e.target for e in examples]), actual)
    scores = rng.integers(-3, 4, (count, classes)).astype(np.float32)
    outputs = logits(*scores)
    result = task.metrics(examples, outputs)
    assert {*result} == {*task.metric_names}
    predicted = scores >= 0
    for average in ("micro", "macro", "weighted"):
        want = metrics.f1_score(actual, predicted, average=average, zero_division=0)
        # One column is binary to scikit-learn, of which micro F1 is the accuracy.
        assert classes == 1 or result[f"f1_{average}"] == pytest.approx(want)
    assert result["exact_match"] == pytest.approx((actual == predicted).all(1).mean())
    assert result["hamming_loss"] == pytest.approx((actual != predicted).mean())
    tuned = task.tuned(examples, outputs)
    assert len(tuned.thresholds) == classes
    best = [
        max(metrics.f1_score(a, s >= t, zero_division=0) for t in (*np.unique(s), np.inf))
        for a, s in zip(actual.T, scores.T, strict=True)
    ]
    assert tuned.metrics(examples, outputs)["f1_macro"] == pytest.approx(np.mean(best))
    for listed, row in zip(task.predictions(examples, outputs), predicted, strict=True):
        assert listed["labels"] == [n for n, there in zip(names, row, strict=True) if there]


def test_multilabel_takes_ones_and_zeros_and_numbers(tokenizer):
    task = MultiLabel(labels=("a", "b", "c"))
    result = task.examples(texts([1, 0, 1], [2], "a c", key="labels"), tokenizer)
    assert [e.target.tolist() for e in result] == [[1, 0, 1], [0, 0, 1], [1, 0, 1]]
    assert MultiLabel().with_labels(texts(["b"], [], ["a", "b"], key="labels")).labels == ("a", "b")


def test_choice(tokenizer):
    rows = records(
        {"question": "ba", "choices": ["ce", "di", "fo"], "label": 2},
        {"question": "gu", "choices": ["ka", "le"], "label": "0"},
    )
    task = MultipleChoice().with_labels(rows)
    examples = task.examples(rows, tokenizer)
    assert [e.target for e in examples] == [2, 0] and task.outputs == 1
    assert [len(e.sequences) for e in examples] == [3, 2]
    assert examples[0].sequences[1].tolist() == tokenizer.encode_pairs([("ba", "di")])[0]
    outputs = [[np.array([x], np.float32) for x in row] for row in ([0, 1, 3], [0, 2])]
    assert task.metrics(examples, outputs) == {"accuracy": 0.5}
    first, second = task.predictions(examples, outputs)
    assert (
        first["choice"] == 2 and second["choice"] == 1 and sum(first["scores"]) == pytest.approx(1)
    )


def test_options_in_columns_and_with_names(tokenizer):
    rows = records({"p": "ba", "q": "ce", "c1": "di", "c2": "fo", "answer": "B"})
    task = MultipleChoice(
        context="{p} {q}", options=("c1", "{c2}"), label_column="answer", labels=("A", "B")
    )
    (example,) = task.examples(rows, tokenizer)
    assert example.target == 1
    assert example.sequences[1].tolist() == tokenizer.encode_pairs([("ba ce", "fo")])[0]
    outputs = [[np.array([0.0]), np.array([1.0])]]
    assert task.predictions([example], outputs)[0]["label"] == "B"


# --- values that could be guessed wrong ----------------------------------------------------------


@pytest.mark.parametrize(
    "cell,want",
    [
        ('["x", "y z"]', ["x", "y z"]),
        ("['x', 'y z']", ["x", "y z"]),
        ("""['it\\'s', "x's", 'a,b',]""", ["it's", "x's", "a,b"]),
        ("('x', 'y')", ["x", "y"]),
        ("{'x'}", ["x"]),
        ("[0, -1.5, 2e3, True]", [0, -1.5, 2000.0, True]),
        ("[]", []),
        ("x y", ["x", "y"]),
        ("( x )", ["(", "x", ")"]),
        ("[x", ["[x"]),
    ],
)
def test_lists_in_cells(cell, want):
    assert Record("x", {"labels": cell}).list("labels") == want


@pytest.mark.parametrize(
    "cell",
    ["['x' 'y']", "[0 1]", "[x, y]", "['x', ['y']]", "['x'", "[" * 9 + "]", "['x', nan]", "[None]"],
)
def test_lists_that_are_neither_json_nor_python(cell):
    wrong = "missing in it" if "n" in cell.lower() else "neither JSON nor Python"
    if cell.endswith("]"):
        assert wrong in message(Record("x", {"labels": cell}).list, "labels")
    else:
        assert Record("x", {"labels": cell}).list("labels") == ["['x'"]


def test_labels_that_are_no_names():
    task = MultiLabel()
    for cell in ("x, y", "x;y", "x|y"):
        assert "JSON list" in message(task.with_labels, texts(cell, key="labels"))
    assert task.with_labels(texts("['x', 'y']", "y", key="labels")).labels == ("x", "y")
    for vectors in ([[1, 0, 1], [0, 0, 1]], [[True, False], [False, True]], ["[0, 1]", "1 1"]):
        assert "ones and zeros" in message(task.with_labels, texts(*vectors, key="labels"))
    assert task.with_labels(texts([0, 1], [0, 1, 2], key="labels")).labels == ("0", "1", "2")


def test_a_vector_of_text_is_one_of_numbers_and_names_come_once(tokenizer):
    task = MultiLabel(labels=("a", "b", "c"))
    result = task.examples(texts("0 0 1", "[1, 0, 1]", key="labels"), tokenizer)
    assert [e.target.tolist() for e in result] == [[0, 0, 1], [1, 0, 1]]
    assert "names 'a' twice" in message(task.examples, texts(["a", "a"], key="labels"), tokenizer)


@pytest.mark.parametrize("value", [float("nan"), None, np.float32("nan"), np.float16("nan")])
def test_missing_values(tokenizer, value):
    task = Classification(labels=("a", "b"))
    for column in ("text", "label"):
        row = {"text": "ba", "label": "a"} | {column: value}
        want = f"x.jsonl:1: {column!r} is empty"
        assert message(task.examples, records(row), tokenizer) == want
    assert Classification().with_labels(texts("a", value, "b")).labels == ("a", "b")
    words = {"tokens": ["ba", value], "ner_tags": ["O", "O"]}
    task = TASKS["tokens"](labels=("O", "B-X", "I-X"))
    assert "missing in it" in message(task.examples, records(words), tokenizer)


@pytest.mark.parametrize("value", ["nan", "NaN", "<NA>", "N/A", "null", "None", "NaT", " ", ""])
def test_missing_values_in_writing(tokenizer, value):
    assert message(Classification().with_labels, texts("a", "b", value)).startswith("x.jsonl:3: ")
    task = Classification(labels=("a", value.strip() or "b"))
    if value.strip():
        assert task.examples(texts(value), tokenizer)[0].target == 1


def test_what_is_no_class():
    for value in ("['x']", "[1, 0]"):
        assert "multilabel" in message(Classification().with_labels, texts("a", value))
    assert Classification().with_labels(texts("[NEG]", "b")).labels == ("[NEG]", "b")
    assert "label is inf" in message(Classification().with_labels, texts("a", float("inf")))


def test_numbers_are_no_classes(tokenizer):
    for values in ([0.1, 0.73, 2.0], ["0.1", "0.73", "2"]):
        assert "regression" in message(Classification().with_labels, texts(*values))
    assert Classification().with_labels(texts("1.5", "v2")).labels == ("1.5", "v2")
    assert Classification().with_labels(texts("0", "1.0")).labels == ("0", "1.0")
    task = Classification(labels=("0.5", "1.5"))
    assert task.examples(texts(1.5), tokenizer)[0].target == 1


def test_numbers_that_overflow_in_float32(tokenizer):
    for value in (1e308, -1e30, "1e20"):
        assert "float32" in message(Regression().examples, texts(value), tokenizer)
    assert Regression().examples(texts(-1e16), tokenizer)[0].target == -1e16


# --- invalid records and options ----------------------------------------------------------------


@pytest.mark.parametrize(
    "row,want",
    [
        ({"text": " ", "label": "a"}, "'text' is empty"),
        ({"text": None, "label": "a"}, "'text' is empty"),
        ({"text": ["x"], "label": "a"}, "'text' is ['x']"),
        ({"text": "ba", "label": "d"}, "label 'd' is not one of"),
        ({"text": "ba", "label": 3}, "label '3' is not one of"),
        ({"text": "ba", "label": -1}, "label '-1' is not one of"),
        ({"text": "ba", "label": None}, "'label' is empty"),
        ({"text": "ba", "label": ["a"]}, "label is ['a']"),
        ({"text": "ba"}, "has no 'label'"),
    ],
)
def test_bad_records(tokenizer, row, want):
    task = Classification(labels=("a", "b", "c"))
    good = {"text": "ba", "label": "a"}
    assert message(task.examples, records(good, row), tokenizer).startswith(f"x.jsonl:2: {want}")


def test_empty_texts_where_they_are_allowed(tokenizer):
    task = Classification(columns=("{a}", "b"), labels=("x", "y"), allow_empty=True)
    rows = records({"a": None, "b": "ba", "label": "x"}, {"a": 0, "b": " ", "label": "x"})
    result = [e.sequences[0].tolist() for e in task.examples(rows, tokenizer)]
    assert result == tokenizer.encode_pairs([("", "ba"), ("0", " ")])


def test_bad_records_are_reported_together(tokenizer):
    task = Classification(labels=("a", "b"))
    result = message(task.examples, texts(*"abcdefghi"), tokenizer)
    places = [part.split(": ")[0] for part in result.split("; ")]
    assert places == [*(f"x.jsonl:{n}" for n in range(3, 8)), "and 2 more"]


def test_missing_columns_are_reported_once(tokenizer):
    task = Classification(columns=("text", "{other} {text}"), labels=("a", "b"))
    result = message(task.examples, texts(*"abab"), tokenizer)
    assert result.startswith("x.jsonl: has no column 'other'") and result.count("has no") == 1


def test_labels_are_looked_for_in_their_column():
    for task in (Classification(label_column="gold"), MultiLabel(label_column="gold")):
        result = message(task.with_labels, texts("a", "b"))
        assert result.startswith("x.jsonl: has no column 'gold'")
    assert message(Classification().with_labels, texts("a", ["b"])).startswith("x.jsonl:2: label")
    result = message(MultiLabel().with_labels, texts(["a"], 3, key="labels"))
    assert result.startswith("x.jsonl:2: 'labels' is 3")


def test_ids_must_differ(tokenizer):
    rows = records(*({"id": i, "text": "ba", "label": "a"} for i in (1, 2, "1")))
    task = Classification(labels=("a", "b"))
    result = message(task.examples, rows, tokenizer)
    assert result.startswith("x.jsonl:3: id '1' is that of x.jsonl:1")
    assert len(Classification(labels=("a", "b"), id_column="").examples(rows, tokenizer)) == 3


@pytest.mark.parametrize("value", ["x", "nan", float("inf"), None, True])
def test_bad_numbers(tokenizer, value):
    result = message(Regression().examples, texts(value), tokenizer)
    assert result.startswith("x.jsonl:1: 'label' is ")


@pytest.mark.parametrize(
    "row,want",
    [
        ({"choices": ["ce"], "label": 0}, "has 1 options"),
        ({"choices": ["ce", ""], "label": 0}, "has an option that is ''"),
        ({"choices": ["ce", "di"], "label": 2}, "label '2' is not one of 0, 1"),
    ],
)
def test_bad_choices(tokenizer, row, want):
    result = message(MultipleChoice().examples, records({"question": "ba", **row}), tokenizer)
    assert result.startswith(f"x.jsonl:1: {want}")


@pytest.mark.parametrize(
    "make,want",
    [
        (lambda: Classification(labels=("a",)), "labels holds only a"),
        (lambda: Classification(labels=("a", "b", "a")), "labels holds a more than once"),
        (lambda: Classification(best_metric="acuracy"), "best_metric is 'acuracy'"),
        (lambda: Classification(labels=("a", "b", "c"), best_metric="auroc"), "best_metric is"),
        (lambda: Regression(best_metric="mean_squared_error"), "best_metric is"),
        (lambda: Classification(columns=("a", "b", "c")), "columns has 3 entries"),
        (lambda: Classification(columns=("{a!r}",)), "template '{a!r}': braces must hold"),
        (lambda: Classification(columns=("{a:>9}",)), "template '{a:>9}': braces must hold"),
        (lambda: Classification(columns=("{",)), "template '{': "),
        (lambda: Classification(max_length=3), "max_length is 3"),
        (lambda: MultiLabel(labels=("a",), thresholds=(0.1, 0.2)), "thresholds has 2 entries"),
        (lambda: MultiLabel(thresholds=(1.5,)), "thresholds.0 is 1.5"),
        (lambda: MultipleChoice(options=()), "options is empty"),
        (lambda: Classification().with_labels(texts("a", "a")), "column 'label' of the training"),
    ],
)
def test_bad_options(make, want):
    assert message(make).startswith(want)


def test_labels_must_be_known_first(tokenizer):
    assert message(Classification().examples, texts("a"), tokenizer).startswith(
        "labels are unknown"
    )


def test_templates_reach_nothing_but_columns(tokenizer):
    result = records({"text": "ba", "label": "a"})
    task = Classification(columns=("{text.__class__}",), labels=("a", "b"))
    assert "has no 'text.__class__'" in message(task.examples, result, tokenizer)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True, "\ud800"])
def test_ids_are_texts_or_numbers(tokenizer, value):
    rows = records({"text": "ba", "label": "a", "id": value})
    with pytest.raises(UserError, match=r"x.jsonl:1: 'id'"):
        Classification(labels=("a", "b")).examples(rows, tokenizer)


@pytest.mark.parametrize("label", ["a\0b", "x" * 5000, "\ud83d", "a\nb"])
def test_labels_that_are_no_names_are_named_before_training(tokenizer, label):
    with pytest.raises(UserError, match=r"x.jsonl:2: label: "):
        Classification().with_labels(texts("a", label))
    with pytest.raises(UserError, match="labels: "):
        Classification(labels=("a", label))


def test_cells_of_a_megabyte_take_no_time_and_long_numbers_are_refused():
    cell = "{" + "'a', " * 200_000 + "}"
    assert Record("x:1", {"labels": cell}).list("labels") == ["a"] * 200_000
    with pytest.raises(UserError, match="neither JSON nor Python"):
        Record("x:1", {"labels": "['a', " + "9" * 5000 + "]"}).list("labels")
