"""Routes, fields and errors, without a computation: what clients see."""

import json
from pathlib import Path

import orjson
import pytest
import serving

from modernbert_jax.errors import UserError
from modernbert_jax.serving import service as serving_service

KINDS = ("mean", "colbert", "sparse", "reranker", "sequence", "masked_lm", "token", "span")

VARYING = ("created", "version")
"""Keys of responses that are not recorded."""


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """A client for each kind of model."""
    folder, contexts = tmp_path_factory.mktemp("models"), []
    made = {}
    for name in KINDS:
        context = serving.client(serving.service(name, folder, real=False))
        made[name] = context.__enter__()
        contexts.append(context)
    yield made
    for context in contexts:
        context.__exit__(None, None, None)


def test_recorded_pairs(clients):
    """Requests with their responses, as they were when the file was written and looked at."""
    pairs = json.loads(Path(__file__).with_name("recorded.json").read_text())
    assert len(pairs) >= 30
    for pair in pairs:
        response = recorded(clients, pair["model"], pair["method"], pair["path"], pair["body"])
        assert response == pair["response"], pair["path"]


def recorded(clients, model: str, method: str, path: str, body) -> dict:
    """What is recorded of a response; numbers are rounded."""
    content = body if isinstance(body, str) else json.dumps(body)
    response = clients[model].request(method, path, content=content if method == "POST" else None)
    kept = {name: v for name, v in response.headers.items() if name in ("content-type", "allow")}
    return {"status": response.status_code, "headers": kept, "body": rounded(response.json())}


def rounded(value):
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [rounded(x) for x in value[:4]]
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items() if key not in VARYING}
    return value


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/embed", b"", 400, "not valid JSON"),
        ("/embed", b'{"inputs": "\\ud800"}', 400, "not valid JSON"),
        ("/embed", b"\xff\xfe", 400, "not valid JSON"),
        ("/embed", b'{"inputs": ' + b"[" * 5000, 400, "not valid JSON"),
        ("/embed", [1], 400, "JSON object"),
        ("/embed", {}, 422, "inputs must be"),
        ("/embed", {"inputs": []}, 422, "inputs must be"),
        ("/embed", {"inputs": [[]]}, 422, "inputs must be"),
        ("/embed", {"inputs": ["a", 1]}, 422, "inputs must be"),
        ("/embed", {"inputs": [True]}, 422, "inputs must be"),
        ("/embed", {"inputs": [1e30]}, 422, "inputs must be"),
        ("/embed", {"inputs": [10**30]}, 422, "inputs must be"),
        ("/embed", {"inputs": [2**40]}, 422, "token id 1099511627776"),
        ("/embed", {"inputs": [-1]}, 422, "token id -1"),
        ("/embed", {"inputs": "a", "normalize": 1}, 422, "normalize must be true or false"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 422, "truncate must be true or false"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "one of left, right"),
        ("/embed", {"inputs": "a", "dimensions": 0}, 422, "dimensions must be 1"),
        ("/embed", {"inputs": "a", "dimensions": 33}, 422, "dimensions must be 1 to 32"),
        ("/embed", {"inputs": "a", "prompt_name": "qery"}, 422, "did you mean 'query'?"),
        ("/embed", {"inputs": "a b " * 40}, 413, "more than 24 tokens"),
        ("/embed", {"inputs": ["a"] * 17}, 413, "batch size 17"),
        ("/embed", {"inputs": [["a"]]}, 422, "inputs must be"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "inputs.sentences must be"),
        ("/similarity", {"inputs": "a"}, 422, "inputs must be an object"),
        ("/tokenize", {"inputs": [1]}, 422, "inputs must be a list"),
        ("/decode", {"ids": [1, "a"]}, 422, "ids must be"),
        ("/decode", {"ids": [999999]}, 422, "ids must be"),
        ("/predict", {"inputs": "a"}, 424, "needs reranker or classifier"),
        ("/fill-mask", {"inputs": "a"}, 424, "no masked-LM head"),
    ],
)
def test_refusals(clients, path, body, status, words):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = clients["mean"].post(path, content=content)
    assert response.status_code == status, response.text
    answer = response.json()
    assert words in answer["error"] and "\n" not in answer["error"]
    assert answer.keys() == {"error", "error_type"}


def test_refusals_in_openais_dialect(clients):
    def refused(body, path="/v1/embeddings"):
        response = clients["mean"].post(path, json=body)
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return response.status_code, error

    status, error = refused({"input": "a", "encoding_format": "int8"})
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == "encoding_format" and "float, base64" in error["message"]
    assert refused({"input": ["a b " * 40]})[0] == 413
    assert refused({"input": "a", "dimensions": 1.5})[1]["param"] == "dimensions"
    assert refused({"input": "a"}, "/v1/nothing")[0] == 404
    late = clients["colbert"].post("/v1/embeddings", json={"input": "a", "dimensions": 3})
    assert late.status_code == 400
    sparse = clients["sparse"].post("/v1/embeddings", json={"input": "a"})
    assert sparse.status_code == 400 and "needs embedding" in sparse.json()["error"]["message"]


def test_texts_are_cut_where_a_request_says(clients):
    texts = {"inputs": "a b c d e f g h " * 20}
    http = clients["mean"]
    assert http.post("/embed", json=texts).status_code == 413
    right = http.post("/embed", json={**texts, "truncate": True}).json()
    left = {**texts, "truncate": True, "truncation_direction": "Left"}
    assert http.post("/embed", json=left).json() != right
    ids = {"inputs": list(range(60))}
    assert http.post("/embed", json=ids).status_code == 413
    cut = http.post("/embed", json={**ids, "truncate": True}).json()
    assert cut == http.post("/embed", json={"inputs": list(range(24))}).json()


def test_the_root_does_what_the_model_does(clients):
    for name, path in (
        ("mean", "/embed"),
        ("colbert", "/embed_all"),
        ("sparse", "/embed_sparse"),
        ("sequence", "/predict"),
    ):
        body = {"inputs": "hello"}
        assert (
            clients[name].post("/", json=body).content
            == clients[name].post(path, json=body).content
        )
    ranks = {"query": "a", "texts": ["b", "c"]}
    http = clients["reranker"]
    assert http.post("/", json=ranks).content == http.post("/rerank", json=ranks).content
    pairs = {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}
    http = clients["mean"]
    assert http.post("/", json=pairs).content == http.post("/similarity", json=pairs).content


def test_answers_are_bounded(clients, monkeypatch):
    monkeypatch.setattr(serving_service, "_NUMBERS", 100)
    large = clients["mean"].post("/embed_all", json={"inputs": "a b c"})
    assert large.status_code == 413 and "send fewer texts" in large.json()["error"]
    http = clients["masked_lm"]
    refused = http.post("/fill-mask", json={"inputs": "[MASK]" * 17})
    assert refused.status_code == 413 and "17 masks; at most 16" in refused.json()["error"]
    many = {"inputs": "[MASK]", "parameters": {"top_k": 101}}
    assert http.post("/fill-mask", json=many).status_code == 422
    long = http.post("/tokenize", json={"inputs": ["a b " * 70] * 10})
    assert long.status_code == 413 and "a request may have 1,000" in long.json()["error"]


def test_damaged_results_are_an_error(tmp_path):
    made = serving.service("mean", tmp_path, real=False)
    made.programs.run = lambda name, shape, rows, skip: [  # type: ignore[method-assign]
        [serving.np.full(32, serving.np.nan, serving.np.float32) for _ in row] for row in rows
    ]
    with serving.client(made) as http:
        response = http.post("/embed", json={"inputs": "a"})
        assert response.status_code == 500 and "not finite" in response.json()["error"]


def test_numbers_are_as_short_as_their_type(clients):
    (vector,) = orjson.loads(clients["mean"].post("/embed", json={"inputs": "a"}).content)
    assert all(serving.np.float32(x) == x or len(repr(x)) <= 13 for x in vector)


def test_multiple_choice_is_not_served(tmp_path):
    with pytest.raises(UserError, match="'multiple_choice' are not served; use predict"):
        serving.service("choice", tmp_path, real=False)


def test_a_longest_text_beyond_the_model(tmp_path):
    with pytest.raises(UserError, match="max_length is 4000; the model reads up to"):
        serving.service("mean", tmp_path, serving.Settings(max_length=4000), real=False)
