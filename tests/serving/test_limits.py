"""Limits, keys, log and metrics, over HTTP and with programs that compute nothing."""

import http.client
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import serving
from serving import post

from modernbert_jax.errors import UserError
from modernbert_jax.inference.runner import Document
from modernbert_jax.serving import guard
from modernbert_jax.serving.settings import Settings

SECRET = "zanzibar"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def held(folder):
    """A service whose batches wait until `programs.gate` is set."""
    made = serving.service("mean", folder, real=False)
    made.programs.gate.clear()
    yield made
    made.programs.gate.set()


def until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def in_flight(made) -> int:
    (line,) = (x for x in made.metrics.text().splitlines() if "requests_in_flight " in x[:40])
    return int(line.split()[1])


def test_large_bodies_are_refused_before_they_are_read(folder):
    made = serving.service("mean", folder, real=False)
    with serving.running(made) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n{")
            assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                raw.sendall(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
            assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")
        assert post(port, "/embed", {"inputs": "a"})[0] == 200
        assert in_flight(made) == 0


def test_requests_beyond_the_limit_get_429_and_when_to_come_again(held):
    made = serving.like(held, Settings(queue_requests=3, batch_tokens=128))
    with serving.running(made) as port, ThreadPoolExecutor(3) as threads:
        accepted = [threads.submit(post, port, "/embed", {"inputs": "a"}) for _ in range(3)]
        until(lambda: in_flight(made) == 3)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/embeddings", json.dumps({"input": "a"}))
        refused = connection.getresponse()
        assert refused.status == 429 and int(refused.headers["retry-after"]) >= 1
        assert json.loads(refused.read())["error"]["type"] == "rate_limit_error"
        connection.close()
        made.programs.gate.set()
        assert [done.result()[0] for done in accepted] == [200] * 3


def test_bodies_of_all_requests_together_are_limited(held):
    made = serving.like(held, Settings(queue_bytes=3000, batch_tokens=128, auto_truncate=True))
    with serving.running(made) as port, ThreadPoolExecutor(1) as threads:
        first = threads.submit(post, port, "/embed", {"inputs": "a " * 1000})
        until(lambda: made.programs.batches)
        assert post(port, "/embed", {"inputs": "a " * 1000})[0] == 429
        made.programs.gate.set()
        assert first.result()[0] == 200
        assert post(port, "/embed", {"inputs": "a " * 1000})[0] == 200


def test_slow_answers_and_slow_bodies_end(held):
    made = serving.like(held, Settings(timeout=0.3, batch_tokens=128))
    with serving.running(made) as port:
        status, answer = post(port, "/embed", {"inputs": "a"})
        assert status == 503 and answer["error_type"] == "Overloaded"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
            assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert in_flight(made) == 0
        made.programs.gate.set()


def test_requests_of_clients_that_hang_up_leave_the_queue(held):
    made = serving.like(held, Settings(batch_tokens=128))
    body = json.dumps({"inputs": ["a b c", "d e f"]}).encode()
    with serving.running(made) as port:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for raw in connections:
            head = f"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            raw.sendall(head.encode() + body)
        until(lambda: in_flight(made) == 20 and made.batcher.tokens)
        for raw in connections:
            raw.close()
        until(lambda: in_flight(made) == 0)
        assert made.batcher.tokens == 0
        made.programs.gate.set()
        assert post(port, "/embed", {"inputs": "a"})[0] == 200
        (gone,) = made.metrics.abandoned.values.values()
        assert gone == 20
        # Those that a batch had taken already are computed, the others are not.
        assert sum(map(len, made.programs.batches)) < 40


def test_keys(folder, tmp_path):
    (tmp_path / "keys").write_text("first-key\n\n second-key \n")
    keys = guard.keys_from(tmp_path / "keys")
    assert keys == ("first-key", "second-key")
    assert guard.keys_from(None, {guard.KEY_VARIABLE: "own"}) == ("own",)
    assert guard.keys_from(None, {}) == ()
    made = serving.service("mean", folder, real=False)
    with serving.client(made, keys) as client:
        for key in keys:
            header = {"authorization": f"Bearer {key}"}
            assert client.post("/embed", json={"inputs": "a"}, headers=header).status_code == 200
            assert client.get("/metrics", headers=header).status_code == 200
        for header in (
            {},
            {"authorization": ""},
            {"authorization": "Bearer"},
            {"authorization": "Bearer first"},
            {"authorization": "Basic first-key"},
            {"authorization": b"Bearer \xff\xfe"},
        ):
            for path in ("/embed", "/v1/embeddings", "/nothing"):
                refused = client.post(path, json={"inputs": "a"}, headers=header)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            for path in ("/info", "/metrics", "/v1/models"):
                assert client.get(path, headers=header).status_code == 401
        for path in ("/health", "/ready", "/"):
            assert client.get(path).status_code == 200
        assert client.post("/", json={"inputs": "a"}).status_code == 401


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"\n \n", "no API key"), (b"a b", "key 1"), (b"\xff", "UTF-8")],
)
def test_files_of_keys_that_are_wrong(tmp_path, content, words):
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        guard.keys_from(tmp_path / "keys")
    assert "a b" not in str(refused.value)


def test_no_text_is_in_the_log(folder, caplog):
    caplog.set_level(logging.DEBUG)
    made = serving.service("mean", folder, real=False)
    with serving.running(made) as port:
        assert post(port, f"/embed?{SECRET}", {"inputs": SECRET})[0] == 200
        assert post(port, "/embed", {"inputs": SECRET * 300})[0] in (413, 422)
        assert post(port, "/embed", {"inputs": "a", "prompt_name": SECRET})[0] == 422
        assert post(port, f"/{SECRET}", {})[0] == 404
        assert post(port, "/embed", SECRET.encode())[0] == 400
        made.programs.error = RuntimeError(SECRET)
        status, answer = post(port, "/embed", {"inputs": SECRET})
        assert status == 500 and SECRET not in json.dumps(answer)
    assert SECRET not in caplog.text
    assert "POST /embed 200 " in caplog.text and "POST other 404 " in caplog.text
    assert "RuntimeError at " in caplog.text and "serving.py:" in caplog.text


def test_metrics_are_prometheus_text(folder):
    made = serving.service("mean", folder, real=False)
    with serving.client(made) as client:
        client.post("/embed", json={"inputs": ["a", "b"]})
        client.post("/embed", json={})
        client.get("/somewhere")
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples, types = {}, {}
    for line in response.text.splitlines():
        if line.startswith("# TYPE "):
            types[line.split()[2]] = line.split()[3]
        elif not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    prefix = "modernbert_jax_"
    assert samples[prefix + 'requests_total{route="/embed",status="200"}'] == 1
    assert samples[prefix + 'requests_total{route="/embed",status="422"}'] == 1
    assert samples[prefix + 'requests_total{route="other",status="404"}'] == 1
    assert samples[prefix + "texts_total"] == 2
    assert samples[prefix + 'batches_total{program="vectors",shape="1x128"}'] == 1
    assert samples[prefix + "tokens_total"] + samples[prefix + "padding_tokens_total"] == 128
    buckets = [v for k, v in samples.items() if k.startswith(prefix + "request_seconds_bucket")]
    assert buckets and samples[prefix + 'request_seconds_count{route="/embed"}'] == 2
    for name in samples:
        base = name.split("{")[0]
        for suffix in ("_bucket", "_sum", "_count"):
            base = base.removesuffix(suffix) if base.removesuffix(suffix) in types else base
        assert base in types


def test_a_thousand_requests_in_flight_are_all_answered(folder):
    """Every client gets the vector of its own text, though all wait at once."""
    made = serving.service("mean", folder, Settings(batch_tokens=2048), real=False)
    made.programs.gate.clear()
    lane, reader = made.programs.lanes["main"], made.reader
    count = 1000
    with serving.running(made) as port:
        connections = []
        for n in range(count):
            raw = socket.create_connection(("127.0.0.1", port), timeout=120)
            body = json.dumps({"inputs": f"a {n}", "normalize": False}).encode()
            head = f"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
            raw.sendall(f"{head}connection: close\r\n\r\n".encode() + body)
            connections.append(raw)
        until(lambda: in_flight(made) == count)
        made.programs.gate.set()
        for n, raw in enumerate(connections):
            with raw, raw.makefile("rb") as file:
                head, _, body = file.read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            (ids,) = reader.tokenizer.encode([f"a {n}"])
            want = serving.vector(lane, Document(ids))
            serving.np.testing.assert_allclose(json.loads(body)[0], want, rtol=1e-6)
    assert len(made.programs.batches) < 100


def test_accepted_requests_are_answered_after_the_end_was_asked_for(held):
    made = serving.like(held, Settings(batch_tokens=128))
    with ThreadPoolExecutor(8) as threads:
        with serving.running(made) as port:
            accepted = [threads.submit(post, port, "/embed", {"inputs": "a"}) for _ in range(8)]
            until(lambda: in_flight(made) == 8)
            threading.Timer(0.3, made.programs.gate.set).start()
        assert [done.result()[0] for done in accepted] == [200] * 8
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
