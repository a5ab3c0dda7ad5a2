"""`modernbert-jax serve` as a process: what it prints, how it ends, what it refuses."""

import http.client
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import models
import pytest
import serving
import whole_program

from modernbert_jax.cli import registry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.write("mean", tmp_path_factory.mktemp("models") / "mean")


def test_options_are_those_of_the_settings():
    options = registry.COMMANDS["serve"].load()
    assert issubclass(options, serving.Settings)


def test_a_taken_address_is_refused(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = whole_program.refused(tmp_path, "serve", "--model", str(model), "--port", port)
    assert f"cannot serve at 127.0.0.1:{port}" in line and "--port" in line


def test_other_refusals(model, tmp_path):
    def refused(*words):
        return whole_program.refused(
            tmp_path, "serve", "--model", str(model), "--port", "0", *words
        )

    assert "no-such-file: API keys cannot be read" in refused("--api-key-file", "no-such-file")


@pytest.mark.slow
def test_a_process_answers_and_ends_after_sigterm(model, tmp_path, request):
    """Requests in flight are answered, the exit code is 0, and no text is printed."""
    words = ("serve", "--model", str(model), "--port", "0", "--wait-ms", "300")
    words += ("--batch-tokens", "128", "--cpu-devices", "1")
    process = whole_program.start(tmp_path, *words)
    request.addfinalizer(process.kill)
    address = ""
    for line in process.stderr:
        if line.startswith("serving mean (embedding) at http://"):
            address = line.split("http://")[1].split(";")[0]
            break
    host, port = address.rsplit(":", 1)

    def ask(text: str) -> tuple[int, list]:
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("POST", "/embed", json.dumps({"inputs": text, "truncate": True}))
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    assert ask("warm")[0] == 200
    with ThreadPoolExecutor(50) as threads:
        answers = [threads.submit(ask, f"zanzibar {n}") for n in range(50)]
        time.sleep(0.15)  # they wait for their batch to close
        process.send_signal(signal.SIGTERM)
        assert [answer.result()[0] for answer in answers] == [200] * 50
    code, out, err = whole_program.ended(process)
    assert code == 0, err
    assert err.splitlines()[-1] == "stopped"
    assert "zanzibar" not in out + err
