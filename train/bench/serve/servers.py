"""How each side is started, asked and stopped."""

import contextlib
import dataclasses
import http.client
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from .. import children

START = 900.0
"""Seconds within which a server has to answer."""

GRACE = 30.0
"""Seconds that a server has to end."""

PEER = Path(__file__).with_name("peer.py")


@dataclasses.dataclass(frozen=True)
class Side:
    """A server to measure."""

    title: str
    command: Callable[[str, int], list[str]]
    """The command for a model and a port."""
    path: str
    """Route that gives vectors."""
    body: Callable[[list[str]], dict[str, Any]]
    """Body of a request for texts."""
    vectors: Callable[[Any], list[list[float]]]
    """Vectors in a response."""


def _inputs(texts: list[str]) -> dict[str, Any]:
    return {"inputs": texts, "truncate": True}


OURS = Side(
    "modernbert-jax serve",
    lambda model, port: [
        *(sys.executable, "-m", "modernbert_jax", "serve", "--model", model),
        *("--port", str(port), "--no-access-log"),
    ],
    "/embed",
    _inputs,
    lambda answer: answer,
)
SENTENCE_TRANSFORMERS = Side(
    "sentence-transformers behind starlette",
    lambda model, port: [sys.executable, "-P", str(PEER), model, str(port)],
    "/embed",
    _inputs,
    lambda answer: answer,
)
INFINITY = Side(
    "infinity-emb",
    lambda model, port: [
        *(str(infinity()), "v2", "--model-id", model, "--port", str(port), "--host", "127.0.0.1"),
        *("--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--dtype", "float32"),
    ],
    "/embeddings",
    lambda texts: {"model": "served", "input": texts},
    lambda answer: [item["embedding"] for item in answer["data"]],
)


def infinity(path: Path | None = None) -> Path | None:
    """The program of infinity-emb, given or on the search path; None if there is none."""
    found = str(path) if path else shutil.which("infinity_emb")
    return Path(found) if found else None


def installed() -> dict[str, Side]:
    """The sides that this environment has, by name."""
    sides = {"ours": OURS}
    if importlib.util.find_spec("sentence_transformers"):
        sides["sentence-transformers"] = SENTENCE_TRANSFORMERS
    if infinity():
        sides["infinity"] = INFINITY
    return sides


@contextlib.contextmanager
def running(side: Side, model: str, log: Path) -> Iterator[int]:
    """Run a side; yields its port once it answers, and ends its process with the block.

    Raises:
        RuntimeError: the server ends before it answers, or does not answer in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        log.open("wb") as output,
        children.child(side.command(model, port), GRACE, stdout=output, stderr=output) as process,
    ):
        _wait(side, process, port, log)
        yield port


def _wait(side: Side, process: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        if process.poll() is not None:
            last = " ".join(log.read_text(errors="replace").splitlines()[-1:])
            raise RuntimeError(f"{side.title} ended with code {process.returncode}: {last}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            body = orjson.dumps(side.body(["warm"]))
            connection.request("POST", side.path, body, {"content-type": "application/json"})
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"{side.title} does not answer within {START:g} s")
