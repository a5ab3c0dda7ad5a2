"""Token classification: targets, windows, entities, and invalid records."""

import json

import corpus
import numpy as np
import pytest
import seqeval.metrics

from modernbert_jax import UserError
from modernbert_jax.train.tasks import IGNORED, Record, Records, TokenClassification

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS = corpus.WORDS


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def records(*rows) -> Records:
    return Records([Record(f"x.conll:{i}", row) for i, row in enumerate(rows, 1)])


def row(words, tags, **more):
    return {"tokens": words, "ner_tags": tags, **more}


def outputs_of(task, examples, tags):
    """Logits for these tags at the tokens that decide words, and random ones elsewhere."""
    rng = np.random.default_rng(0)
    result = []
    for example, said in zip(examples, tags, strict=True):
        logits = [
            rng.standard_normal((len(s), task.outputs)).astype(np.float32)
            for s in example.sequences
        ]
        for (j, at), tag in zip(example.source.places, said, strict=True):
            if j >= 0:
                logits[j][at] = 9 * (np.arange(task.outputs) == task.labels.index(tag))
        result.append(logits)
    return result


def message(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_word_is_learned_at_its_first_token(tokenizer):
    words, tags = ["ba", "xyzzy", "ce"], ["O", "B-PER", "I-PER"]
    rows = records(row(words, tags))
    for every in (False, True):
        task = TokenClassification(labels=LABELS, label_all_pieces=every)
        (example,) = task.examples(rows, tokenizer)
        pieces = [len(tokenizer.encode_raw([f" {w}"])[0]) for w in words]
        assert pieces[1] > 1
        labels = [
            (tag, "I-PER" if tag == "B-PER" else tag, count)
            for tag, count in zip(tags, pieces, strict=True)
        ]
        want = [IGNORED]
        for first, later, count in labels:
            rest = LABELS.index(later) if every else IGNORED
            want += [LABELS.index(first), *[rest] * (count - 1)]
        (target,) = example.target
        assert target.tolist() == [*want, IGNORED] and target.dtype == np.int32


def test_labels_are_found_in_the_data(tokenizer):
    task = TokenClassification().with_labels(
        records(row(["ba", "ce"], ["B-X", "O"]), row(["di"], ["I-X"]))
    )
    assert task.labels == ("B-X", "I-X", "O")
    assert "f1_X" in task.metric_names and task.best_metric == "f1"
    declared = Records([Record("x:1", row(["ba"], ["O"]))], {"ner_tags": LABELS})
    assert TokenClassification().with_labels(declared).labels == LABELS


@pytest.mark.parametrize("max_length,stride", [(512, 64), (16, 6), (9, 0)])
def test_metrics_and_spans_over_windows(tokenizer, max_length, stride):
    """Every word is predicted, whatever the windows; entities may span two of them."""
    rng = np.random.default_rng(1)
    rows, guesses = [], []
    for _ in range(6):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), 30)]
        tags = ["O", "B-PER", "I-PER", "O", "B-LOC", "B-PER"] * 5
        rows.append(row(words, tags))
        guesses.append([t if rng.random() < 0.7 else str(rng.choice(LABELS)) for t in tags])
    task = TokenClassification(labels=LABELS, max_length=max_length, stride=stride)
    examples = task.examples(records(*rows), tokenizer)
    assert all(len(s) <= max_length for e in examples for s in e.sequences)
    assert all(len(e.sequences) > 1 for e in examples) == (max_length < 512)
    for example in examples:
        learned = sum((t != IGNORED).sum() for t in example.target)
        assert learned == 30 and (example.source.places >= 0).all()
        for (j, at), tag in zip(example.source.places, example.source.tags, strict=True):
            assert example.target[j][at] == LABELS.index(tag)
    outputs = outputs_of(task, examples, guesses)
    result = task.metrics(examples, outputs)
    assert {*result} == {*task.metric_names}
    actual = [r["ner_tags"] for r in rows]
    assert result["f1"] == pytest.approx(seqeval.metrics.f1_score(actual, guesses))
    assert result["accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(actual, guesses))
    predictions = task.predictions(examples, outputs)
    assert [p["tags"] for p in predictions] == guesses
    json.dumps(predictions)


def test_entities_by_words_and_by_characters(tokenizer):
    words, tags = ["ba", "ce", "di", "fo"], ["O", "B-PER", "I-PER", "B-LOC"]
    text = " ba ce  di,fo"
    rows = records(
        row(words, tags),
        row(words, tags, text="another"),
        row([*words[:3], ",", "fo"], [*tags[:3], "O", "B-LOC"], text=text),
    )
    task = TokenClassification(labels=LABELS)
    examples = task.examples(rows, tokenizer)
    outputs = outputs_of(task, examples, [e.source.tags for e in examples])
    first, second, third = task.predictions(examples, outputs)
    person, place = first["entities"]
    assert person["label"] == "PER" and (person["first_word"], person["end_word"]) == (1, 3)
    assert person["text"] == "ce di" and 0.9 < person["score"] < 1
    assert (place["first_word"], place["end_word"]) == (3, 4)
    assert second["entities"] == first["entities"]
    spans = [(e["start"], e["end"], e["text"]) for e in third["entities"]]
    assert spans == [(4, 10, "ce  di"), (11, 13, "fo")]


def test_texts_with_entities_by_characters(tokenizer):
    text = "ba ce, di fo."
    entity = [{"start": 3, "end": 5, "label": "PER"}, {"start": 6, "end": 13, "label": "LOC"}]
    rows = records({"text": text, "entities": [entity[0]]})
    task = TokenClassification().with_labels(rows)
    assert task.labels == ("B-PER", "I-PER", "O")
    (example,) = task.examples(rows, tokenizer)
    assert example.sequences[0].tolist() == tokenizer.encode([text])[0]
    assert example.source.words == ("ba", "ce", ",", "di", "fo", ".")
    assert example.source.tags == ("O", "B-PER", "O", "O", "O", "O")
    outputs = outputs_of(task, [example], [("O", "B-PER", "O", "O", "B-PER", "I-PER")])
    (result,) = task.predictions([example], outputs)
    spans = [(e["start"], e["end"], e["text"]) for e in result["entities"]]
    assert spans == [(3, 5, "ce"), (10, 13, "fo.")]
    (bare,) = task.examples(records({"text": text}), tokenizer, labelled=False)
    assert bare.target is None and bare.source.words == example.source.words
    with pytest.raises(UserError, match="has no tags to measure by"):
        task.metrics([bare], outputs)


def test_words_without_tokens_are_outside(tokenizer):
    task = TokenClassification(labels=LABELS)
    (example,) = task.examples(records(row(["ba", "", "ce"], ["O"] * 3)), tokenizer)
    assert example.source.places[1].tolist() == [-1, -1]
    outputs = outputs_of(task, [example], [("B-PER", "O", "B-LOC")])
    assert task.predictions([example], outputs)[0]["tags"] == ["B-PER", "O", "B-LOC"]


def test_parts_of_speech(tokenizer):
    rows = records(row(["ba", "ce"], ["NOUN", "VERB"]), row(["di"], ["NOUN"]))
    task = TokenClassification(scheme="none").with_labels(rows)
    assert task.labels == ("NOUN", "VERB") and task.best_metric == "accuracy"
    examples = task.examples(rows, tokenizer)
    result = task.metrics(examples, outputs_of(task, examples, [("NOUN", "NOUN"), ("NOUN",)]))
    assert {*result} == {*task.metric_names} and result["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "bad,want",
    [
        (row(["a", "b"], ["O"]), "'ner_tags' has 1 tags for 2 words"),
        (row(["a"], ["B-ORG"]), "label 'B-ORG' is not one of"),
        (row(["a", "b"], ["O", "I-PER"]), "tag 'I-PER' of word 2, 'b', breaks IOB2"),
        (row(["a", "b"], ["B-PER", "I-LOC"]), "tag 'I-LOC' of word 2, 'b', breaks IOB2"),
        (row([], []), "'tokens' is empty"),
        (row([" "], ["O"]), "'tokens' is empty"),
        (row([["a"]], ["O"]), "'tokens' has ['a'] at 0"),
        (row(7, ["O"]), "'tokens' is 7"),
        ({"tokens": ["a"]}, "has no 'ner_tags'; it has tokens"),
        ({"words": ["a"]}, "has no 'tokens'; it has words"),
        ({"text": "ba", "entities": [{"start": 0}]}, "'entities' has {'start': 0}"),
        (
            {"text": "ba", "entities": [{"start": 1, "end": 9, "label": "PER"}]},
            "'entities' has an entity from 1 to 9",
        ),
        (
            {"text": "ba", "entities": [{"start": 0, "end": 1, "label": "PER"}]},
            "entity 'b' at 0 begins or ends within 'ba'",
        ),
        (
            {"text": "ba ce", "entities": 2 * [{"start": 0, "end": 2, "label": "PER"}]},
            "'entities' has 'ba' and 'ba', which overlap",
        ),
    ],
)
def test_bad_records(tokenizer, bad, want):
    good = row(["a", "b"], ["O", "B-PER"])
    result = message(TokenClassification(labels=LABELS).examples, records(good, bad), tokenizer)
    assert result.startswith(f"x.conll:2: {want}")


def test_bad_options():
    assert message(lambda: TokenClassification(labels=("O", "PER"))).startswith(
        "tag 'PER' is none of IOB2's"
    )
    assert message(lambda: TokenClassification(stride=300)).startswith("stride is 300")
    unlike = records(row(["a"], ["O"]), {"tokens": ["a"], "pos": ["X"]})
    result = message(TokenClassification().with_labels, unlike)
    assert result == "x.conll:2: has no 'ner_tags'; it has tokens, pos"
    assert "fewer than two tags" in message(
        TokenClassification().with_labels, records(row(["a"], ["O"]))
    )


def test_lists_may_be_text(tokenizer):
    task = TokenClassification(labels=LABELS)
    rows = records(row("ba ce", "O B-PER"), row('["ba", "ce"]', '["O", "B-PER"]'))
    first, second = task.examples(rows, tokenizer)
    assert first.source.words == second.source.words == ("ba", "ce")
    np.testing.assert_array_equal(first.target[0], second.target[0])
