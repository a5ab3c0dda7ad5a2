"""The load test of servers: what it counts, and that it sees lost and wrong answers."""

import importlib.util
import json
import sys

import corpus
import numpy as np
import orjson
import pytest
import serving
from starlette.testclient import TestClient

from modernbert_jax.errors import UserError
from modernbert_jax.serving.settings import Settings
from modernbert_jax.train.bench.serve import comparison, peer, servers
from modernbert_jax.train.bench.serve.load import Result, drive

LOAD = comparison.Load(requests=40, connections=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return serving.service("mean", tmp_path_factory.mktemp("models"), real=False)


def test_every_request_is_counted(made):
    bodies = [orjson.dumps({"inputs": f"a {n}"}) for n in range(300)]
    with serving.running(made) as port:
        result = drive(port, "/embed", bodies, 16, keep=5)
    assert len(result.latencies) == 300 and result.lost == 0
    assert 0 < min(result.latencies) <= result.percentile(99) / 1e3 <= result.seconds
    assert result.per_second == pytest.approx(300 / result.seconds)
    with serving.client(serving.like(made, serving.TINY)) as http:
        own = [http.post("/embed", content=body).content for body in bodies[:5]]
    assert [result.bodies[number] for number in range(5)] == own


def test_refused_requests_are_lost(made):
    few = serving.like(made, Settings(max_texts=1, batch_tokens=128))
    bodies = [orjson.dumps({"inputs": ["a"] * (1 + n % 2)}) for n in range(20)]
    with serving.running(few) as port:
        assert drive(port, "/embed", bodies, 4).lost == 10
    assert drive(port, "/embed", bodies[:2], 2).lost == 2  # nobody listens there now


def test_texts_have_mixed_lengths(tmp_path):
    source = (str(corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts(400))),)
    requests = comparison._requests(comparison.Load(requests=200, texts=2), source)
    lengths = [len(text.split()) for texts in requests for text in texts]
    assert len(lengths) == 400 and min(lengths) >= 4 and max(lengths) <= 320
    assert np.quantile(lengths, 0.9) > 3 * np.quantile(lengths, 0.2)
    assert requests == comparison._requests(comparison.Load(requests=200, texts=2), source)


def test_wrong_vectors_are_seen():
    want = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    bodies = {0: b"[[1, 0]]", 1: b"[[0, 0.5]]"}
    result = Result(seconds=1.0, latencies=[1.0], bodies=bodies, lost=0)
    assert comparison._difference(servers.OURS, result, want) == 0.5
    nothing = Result(seconds=1.0, latencies=[], bodies={}, lost=1)
    assert comparison._difference(servers.OURS, nothing, want) == np.inf


def test_the_peer_gives_each_request_its_own_vectors():
    class Model:
        def __init__(self):
            self.batches = []

        def encode(self, texts, batch_size, normalize_embeddings, show_progress_bar):
            self.batches.append(len(texts))
            return np.array([[len(text), 0.5] for text in texts], np.float32)

    model = Model()
    with TestClient(peer.make_app(model)) as http:
        response = http.post("/embed", json={"inputs": ["a", "bbb", "cc"] * 20})
        assert response.json() == [[1.0, 0.5], [3.0, 0.5], [2.0, 0.5]] * 20
        assert http.get("/health").status_code == 200
    assert sum(model.batches) == 60 and max(model.batches) <= peer.BATCH


def test_a_server_that_ends_is_reported(tmp_path):
    side = servers.Side(
        "broken", lambda model, port: ["sh", "-c", "echo why; exit 3"], "/", servers.OURS.body, list
    )
    with (
        pytest.raises(RuntimeError, match="broken ended with code 3: why"),
        servers.running(side, "model", tmp_path / "log"),
    ):
        pass


STRICT = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200 if self.headers["content-type"] == "application/json" else 422)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_that_wants_the_type_of_the_body_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "START", 60.0)
    command = [sys.executable, "-c", STRICT]
    side = servers.Side(
        "strict", lambda model, port: [*command, str(port)], "/", servers.OURS.body, list
    )
    with servers.running(side, "model", tmp_path / "log") as port:
        assert port > 0


def test_an_unknown_side_is_refused():
    with pytest.raises(UserError, match="no side 'other'"):
        list(comparison.compare("model", LOAD, (), ("other",), print))


@pytest.mark.slow
def test_the_command_measures_us(tmp_path, capsys):
    """The whole comparison, with our side alone and a tiny model."""
    import models
    from program import run

    model = models.write("mean", tmp_path / "mean")
    code, out, err = run(
        capsys, "bench", "serve", "--model", model, "--sides", "ours", "--requests", "20",
        "--connections", "4", "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert code == 0, err
    assert "modernbert-jax serve" in out
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["largest_difference"] < 1e-5 and row["requests_per_second"] > 0


def test_the_peer_is_offered_where_it_is_installed():
    known = servers.installed()
    assert "ours" in known
    has = importlib.util.find_spec("sentence_transformers") is not None
    assert ("sentence-transformers" in known) == has
