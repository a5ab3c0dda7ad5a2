"""Token classification and question answering: those of `ModernBert`, however texts are cut."""

import json

import models
import pytest
import serving

from modernbert_jax.serving.settings import Settings

TAGS = {"0": "O", "1": "B-PER", "2": "I-PER"}
TEXTS = [*models.TEXTS, "the lazy dog " * 40]
QUESTION, CONTEXT = "what is this?", "the quick brown fox jumps over the lazy dog " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, of which one has tags of entities, and one labels of another kind."""
    folder = tmp_path_factory.mktemp("models")
    config = models.write("token", folder / "tags") / "config.json"
    values = json.loads(config.read_text())
    values |= {"id2label": TAGS, "label2id": {name: int(i) for i, name in TAGS.items()}}
    config.write_text(json.dumps(values))
    models.write("token", folder / "token")
    models.write("span", folder / "span")
    return folder


@pytest.fixture(scope="module")
def tags(folder):
    return serving.service("tags", folder)


@pytest.fixture(scope="module")
def span(folder):
    return serving.service("span", folder)


def close(got, want) -> None:
    """Equal, but for scores, which are close."""
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert {**a, "score": 0} == {**b, "score": 0}
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_entities_are_those_of_the_model(tags):
    assert tags.kind == "token-classifier"
    wanted = [
        [
            {"entity_group": e["label"], "word": e["text"]}
            | {key: e[key] for key in ("score", "start", "end")}
            for e in of_text
        ]
        for of_text in tags.bert.entities(TEXTS)
    ]
    assert sum(map(len, wanted)) > 10
    with serving.client(tags) as http:
        several = http.post("/token-classification", json={"inputs": TEXTS}).json()
        for got, want in zip(several, wanted, strict=True):
            close(got, want)
        for path in ("/token-classification", "/"):
            close(http.post(path, json={"inputs": TEXTS[1]}).json(), wanted[1])
        ignored = {"inputs": TEXTS[1], "parameters": {"ignore_labels": ["PER"]}}
        assert http.post("/", json=ignored).json() == []


def test_words_with_their_labels(tags, folder):
    parameters = {"aggregation_strategy": "none", "ignore_labels": []}
    with serving.client(serving.like(tags, serving.TINY)) as http:
        body = {"inputs": TEXTS[1], "parameters": parameters}
        words = http.post("/token-classification", json=body).json()
        (predicted,) = tags.bert.predictions([{"text": TEXTS[1]}])
        assert [word["entity"] for word in words] == predicted["tags"]
        assert [word["word"] for word in words] == predicted["words"]
        assert all(TEXTS[1][w["start"] : w["end"]] == w["word"] for w in words)
        parameters.pop("ignore_labels")
        left = http.post("/", json=body).json()
        assert [word for word in words if word["entity"] != "O"] == left
    other = serving.service("token", folder, real=False)
    with serving.client(other) as http:  # its labels are no tags
        groups = http.post("/token-classification", json={"inputs": TEXTS[1]}).json()
        assert {group["entity_group"] for group in groups} <= {*other.bert.labels}
        assert [group["word"] for group in groups] == predicted["words"]


def test_answers_are_those_of_the_model(span):
    assert span.kind == "question-answering"
    inputs = {"question": QUESTION, "context": CONTEXT}
    keys = ("answer", "score", "start", "end")
    want = span.bert.answer(QUESTION, CONTEXT)
    with serving.client(span) as http:
        for path in ("/question-answering", "/"):
            got = http.post(path, json={"inputs": inputs}).json()
            close([got], [{key: want[key] for key in keys}])
            assert CONTEXT[got["start"] : got["end"]] == got["answer"]
        body = {"inputs": inputs, "parameters": {"top_k": 3}}
        best = http.post("/question-answering", json=body).json()
        close(best, [c | {"answer": c.pop("text")} for c in want["candidates"][:3]])
        short = {"max_answer_len": 1, "doc_stride": 8, "max_seq_len": 40, "top_k": 2}
        for answer in http.post("/", json={"inputs": inputs, "parameters": short}).json():
            assert " " not in answer["answer"].strip()
        nothing = {"handle_impossible_answer": True}
        status = http.post("/", json={"inputs": inputs, "parameters": nothing}).status_code
        assert status == 200


def test_long_texts_are_read_in_windows(folder):
    """Windows are as long as the server's limit, and all of a text counts against the others."""
    made = serving.service("tags", folder, Settings(max_length=24, batch_tokens=128), real=False)
    with serving.client(made) as http:
        got = http.post("/", json={"inputs": TEXTS[-1], "parameters": {"ignore_labels": []}})
        assert got.status_code == 200
    lengths = [len(document) for batch in made.programs.batches for document in batch]
    assert max(lengths) <= 24 and len(lengths) > 5
    few = serving.like(made, Settings(max_length=24, max_tokens=50, batch_tokens=128))
    with serving.client(few) as http:
        refused = http.post("/", json={"inputs": TEXTS[-1]})
        assert refused.status_code == 413


@pytest.mark.parametrize(
    ("name", "path", "body", "status", "words"),
    [
        ("tags", "/token-classification", {"inputs": 3}, 422, "inputs must be a string"),
        ("tags", "/token-classification", {"inputs": []}, 422, "at least one string"),
        ("tags", "/token-classification", {"inputs": " "}, 422, "empty"),
        ("tags", "/", {"inputs": "a", "parameters": {"stride": 400}}, 422, "stride is 400"),
        ("tags", "/", {"inputs": "a", "parameters": {"ignore_labels": [1]}}, 422, "ignore_labels"),
        ("tags", "/question-answering", {"inputs": {"question": "a", "context": "b"}}, 424, "kind"),
        ("tags", "/predict", {"inputs": "a"}, 424, "kind token-classifier"),
        ("span", "/question-answering", {"inputs": {"question": "a"}}, 422, "inputs.context"),
        ("span", "/token-classification", {"inputs": "a"}, 424, "needs token classifier"),
        ("span", "/", {"inputs": {"question": "a " * 200, "context": "b"}}, 422, "no room"),
    ],
)
def test_refusals(folder, name, path, body, status, words):
    with serving.client(serving.service(name, folder, real=False)) as http:
        refused = http.post(path, json=body)
        assert refused.status_code == status and words in refused.json()["error"]
