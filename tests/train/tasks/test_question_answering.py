"""Question answering on texts of all lengths: targets, answers, thresholds, invalid records."""

import json

import corpus
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.tasks import QuestionAnswering, Record, Records

WORDS = corpus.WORDS
TEXT = " ".join(WORDS[:60])


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def record(*answers, context=TEXT, **more):
    """A record with answers given by their words, or as objects."""
    result = [
        a if isinstance(a, dict) else {"text": a, "answer_start": context.find(a)} for a in answers
    ]
    return {"question": " what is it?", "context": context, "answers": result, **more}


def records(*rows) -> Records:
    return Records([Record(f"x.jsonl:{i}", row) for i, row in enumerate(rows, 1)])


def logits_for(example, text, strength=8.0, none=0.0):
    """Logits that select a span of the text in each window that holds it, and `none` for [CLS]."""
    start = example.source.context.find(text)
    result = []
    for sequence, spans in zip(example.sequences, example.source.spans, strict=True):
        logits = np.zeros((len(sequence), 2), np.float32)
        logits[0] = none
        inside = np.flatnonzero(
            (spans[:, 0] >= 0) & (spans[:, 1] > start) & (spans[:, 0] < start + len(text))
        )
        if text and inside.size and spans[inside[0], 0] <= start:
            logits[inside[0], 0] = logits[inside[-1], 1] = strength
        result.append(logits)
    return result


@pytest.mark.parametrize("max_length,stride", [(384, 128), (48, 16), (40, 0)])
def test_targets_are_the_answers_tokens(tokenizer, max_length, stride):
    task = QuestionAnswering(max_length=max_length, stride=stride)
    answers = [" ".join(WORDS[i : i + 2]) for i in range(0, 58, 3)]
    rows = records(*(record(a) for a in answers))
    held = 0
    for example, answer in zip(task.examples(rows, tokenizer), answers, strict=True):
        assert (len(example.sequences) == 1) == (max_length == 384)
        for ids, spans, (first, last) in zip(
            example.sequences, example.source.spans, example.target, strict=True
        ):
            assert len(ids) <= max_length
            start = TEXT.find(answer)
            text = spans[spans[:, 0] >= 0]
            whole = text[0, 0] <= start and text[-1, 1] >= start + len(answer)
            assert ((first, last) != (0, 0)) == whole
            if whole:
                assert TEXT[spans[first, 0] : spans[last, 1]].strip() == answer
                assert tokenizer.decode(ids[first : last + 1].tolist()).strip() == answer
                held += 1
    assert held >= len(answers) * 0.8


def test_a_character_of_several_tokens_is_an_answer(tokenizer):
    text = "ba 🙂 ce"
    (example,) = QuestionAnswering().examples(records(record("🙂", context=text)), tokenizer)
    first, last = example.target[0]
    assert last - first >= 2
    assert tokenizer.decode(example.sequences[0][first : last + 1].tolist()).strip() == "🙂"


@pytest.mark.parametrize("max_length,stride", [(384, 128), (48, 16)])
def test_answers_and_metrics(tokenizer, max_length, stride):
    task = QuestionAnswering(max_length=max_length, stride=stride, n_best=5)
    rows = records(record("badi bafo", "baba bace"), record("baka bale"), record("cedi"))
    examples = task.examples(rows, tokenizer)
    message = ["baba bace", "bale bami", "cedi"]
    outputs = [logits_for(e, s) for e, s in zip(examples, message, strict=True)]
    result = task.metrics(examples, outputs)
    assert result == pytest.approx({"exact_match": 2 / 3, "f1": (1 + 0.5 + 1) / 3})
    assert {*result} == {*task.metric_names}
    predictions = task.predictions(examples, outputs)
    assert [p["answer"] for p in predictions] == message
    for p in predictions:
        assert TEXT[p["start"] : p["end"]] == p["answer"]
        assert len(p["candidates"]) == 5 and p["candidates"][0]["text"] == p["answer"]
        assert sum(c["score"] for c in p["candidates"]) == pytest.approx(1)
    json.dumps(predictions, allow_nan=False)


def test_answers_are_no_longer_than_allowed(tokenizer):
    task = QuestionAnswering(max_answer_length=2)
    (example,) = task.examples(records(record("bace")), tokenizer)
    (result,) = task.predictions([example], [logits_for(example, " ".join(WORDS[3:9]))])
    assert len(tokenizer.encode_raw([result["answer"]])[0]) <= 3


def test_no_answer_and_its_threshold(tokenizer):
    task = QuestionAnswering(no_answer=True)
    rows = records(record("baba"), record(), record("bace"), record(is_impossible=True, answers=[]))
    examples = task.examples(rows, tokenizer)
    assert examples[1].target == ((0, 0),)
    # The second prefers no answer clearly; the fourth does only with a tuned threshold.
    none = (0, 20, 2, 7)
    message = ("baba", "baka", "bace", "bale")
    outputs = [logits_for(e, s, none=n) for e, s, n in zip(examples, message, none, strict=True)]
    result = task.metrics(examples, outputs)
    assert {*result} == {*task.metric_names}
    assert result["f1"] == 0.75 and result["f1_unanswerable"] == 0.5 and result["best_f1"] == 1
    tuned = task.tuned(examples, outputs)
    assert tuned.metrics(examples, outputs)["f1"] == 1
    before, after = task.predictions(examples, outputs), tuned.predictions(examples, outputs)
    assert [p["answer"] for p in before] == ["baba", "", "bace", "bale"]
    assert [p["answer"] for p in after] == ["baba", "", "bace", ""]
    assert before[0]["no_answer_score"] == -16
    json.dumps([*before, *after], allow_nan=False)
    assert QuestionAnswering().tuned(examples, outputs) == QuestionAnswering()


def test_without_answers(tokenizer):
    row = {"question": "ba?", "context": TEXT}
    (example,) = QuestionAnswering().examples(records(row), tokenizer, labelled=False)
    assert example.target is None
    assert (
        QuestionAnswering().predictions([example], [logits_for(example, "bace")])[0]["answer"]
        == "bace"
    )


def test_both_forms_of_answers_are_read(tokenizer):
    lists = {"text": ["bace"], "answer_start": [TEXT.find("bace")]}
    first, second = QuestionAnswering().examples(
        records(record("bace"), record() | {"answers": lists}), tokenizer
    )
    assert first.target == second.target != ((0, 0),)


@pytest.mark.parametrize(
    "bad,want",
    [
        (record(), "set no_answer"),
        (record(question=" "), "'question' is empty"),
        (record({"text": "bace", "answer_start": 1}), "character 1"),
        (record({"text": "bace", "answer_start": -1}), "character -1"),
        (record({"text": "bace"}), "{'text': 'bace'}"),
        (record(answers={"text": ["x"]}), "lists text and answer_start"),
        (record(answers=["x"]), "'answers' has 'x'"),
        (record("baba", question="bace " * 300), "no room for 129 tokens"),
    ],
)
def test_bad_records(tokenizer, bad, want):
    with pytest.raises(UserError) as error:
        QuestionAnswering().examples(records(record("baba"), bad), tokenizer)
    assert str(error.value).startswith("x.jsonl:2: ") and want in str(error.value)


def test_bad_options():
    for options, want in (({"stride": 400}, "stride is 400.*384"), ({"n_best": 0}, "n_best is 0")):
        with pytest.raises(UserError, match=want):
            QuestionAnswering(**options)
