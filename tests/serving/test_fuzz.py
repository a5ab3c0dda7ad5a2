"""Damaged and odd request bodies: always a refusal or an answer, never status 500, never a hang."""

import contextlib
import json
import random
import socket
import time

import fuzzing
import pytest
import serving

from modernbert_jax.serving.settings import Settings

BODIES = {
    "mean": {
        "/v1/embeddings": {
            "input": ["hello", "a b"],
            "model": "m",
            "encoding_format": "base64",
            "dimensions": 4,
            "user": "u",
        },
        "/embed": {
            "inputs": [[5, 6], [7]],
            "truncate": True,
            "truncation_direction": "Left",
            "normalize": False,
            "prompt_name": "query",
        },
        "/embed_all": {"inputs": "hello", "is_query": True},
        "/similarity": {
            "inputs": {"source_sentence": "a", "sentences": ["b", "c"]},
            "parameters": {"truncate": True, "prompt_name": "query"},
        },
        "/tokenize": {"inputs": ["a", "b"], "add_special_tokens": True, "prompt_name": "query"},
        "/decode": {"ids": [[5, 6], [7]], "skip_special_tokens": True},
        "/": {"inputs": ["a", "b"], "parameters": {}},
    },
    "colbert": {"/v1/embeddings": {"input": ["a", "b"], "is_query": True}},
    "sparse": {"/embed_sparse": {"inputs": ["a", "b"], "truncate": True}},
    "reranker": {
        "/rerank": {
            "query": "a",
            "texts": ["b", "c"],
            "raw_scores": True,
            "return_text": True,
            "truncate": True,
            "truncation_direction": "right",
        }
    },
    "sequence": {
        "/predict": {
            "inputs": [["a"], ["b", "c"]],
            "raw_scores": False,
            "parameters": {"top_k": 2, "function_to_apply": "sigmoid"},
        }
    },
    "masked_lm": {"/fill-mask": {"inputs": "a [MASK]", "parameters": {"top_k": 3}}},
    "token": {
        "/token-classification": {
            "inputs": ["hello", "a b"],
            "parameters": {"aggregation_strategy": "none", "ignore_labels": ["O"], "stride": 4},
        }
    },
    "span": {
        "/question-answering": {
            "inputs": {"question": "a", "context": "b c d"},
            "parameters": {
                "top_k": 2,
                "doc_stride": 4,
                "max_seq_len": 40,
                "max_answer_len": 5,
                "handle_impossible_answer": True,
            },
        }
    },
}
"""Sound bodies, by model and route."""

SECONDS = 20
"""Longest time of an answer, on a machine that does other things, too."""


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_odd_bodies_are_refused(tmp_path, count):
    settings = Settings(batch_tokens=128, max_texts=16, max_tokens=1000, max_bytes=5000, wait_ms=0)
    routes = [(name, path) for name, paths in BODIES.items() for path in paths]
    share = -(-count // len(routes))
    seen: dict[int, int] = {}
    for name, paths in BODIES.items():
        with serving.client(serving.service(name, tmp_path, settings, real=False)) as client:
            for path, body in paths.items():
                assert client.post(path, json=body).status_code == 200, path
                for number in range(share):
                    rng = random.Random(f"{path} {number}")
                    content = fuzzing.mutated(rng, json.dumps(body).encode())
                    began = time.monotonic()
                    response = client.post(path, content=content)
                    assert time.monotonic() - began < SECONDS, content
                    status = response.status_code
                    assert status == 200 or 400 <= status < 500, (status, path, content)
                    seen[status] = seen.get(status, 0) + 1
                    answer = response.json()
                    if status != 200:
                        assert "error" in answer, (path, content)
                assert client.post(path, json=body).status_code == 200, path
    assert sum(seen.values()) >= count
    assert {200, 400, 413, 422} <= seen.keys(), seen
    assert sum(n for status, n in seen.items() if status != 200) > count / 3


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}{}{",
        b"POST /embed HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models/%ff%fe%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ],
)
def test_broken_requests_do_not_harm_others(odd_server, raw):
    answer = b""
    with (
        contextlib.suppress(OSError),  # the server may hang up first
        socket.create_connection(("127.0.0.1", odd_server), timeout=60) as connection,
    ):
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read(100)
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert serving.post(odd_server, "/embed", {"inputs": "a"})[0] == 200


@pytest.fixture(scope="module")
def odd_server(tmp_path_factory):
    made = serving.service("mean", tmp_path_factory.mktemp("models"), real=False)
    with serving.running(made) as port:
        yield port
