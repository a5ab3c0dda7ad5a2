"""A tiny served model, in this process or behind a socket of its own."""

import contextlib
import http.client
import json
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
from starlette.testclient import TestClient

from modernbert_jax import ModernBert
from modernbert_jax.serving import server
from modernbert_jax.serving.app import create_app
from modernbert_jax.serving.programs import Programs
from modernbert_jax.serving.service import Service
from modernbert_jax.serving.settings import Settings

TINY = Settings(batch_tokens=128, max_texts=16, max_tokens=1000, max_bytes=20000)
"""One shape of a row, so that little is compiled."""


class Counting(Programs):
    """Programs that compile nothing: a result is made of a document's ids.

    Attributes:
        gate: batches wait until it is set.
        batches: documents of each batch, in the order in which they began.
        error: raised by every batch, if it is not None.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate, self.error = threading.Event(), None
        self.batches: list[list[tuple[int, ...]]] = []
        self.gate.set()

    def compile(self, report=None) -> None:
        """Compile nothing."""

    def run(self, name, shape, rows, skip) -> list[list[np.ndarray]]:
        """Results that only their documents decide."""
        self.batches.append([tuple(d.ids) for row in rows for d in row])
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        lane = self.lanes[name]
        return [[vector(lane, d) for d in row] for row in rows]

    def activated(self, logits):
        """Scores with the sigmoid."""
        return 1 / (1 + np.exp(-logits))

    def mask_scores(self, states):
        """Scores that rise with the id."""
        width = self._bert.config.vocab_size
        return np.tile(np.arange(width, dtype=np.float32) / width, (len(states), 1))


def vector(lane, document) -> np.ndarray:
    """The result of a document in `Counting`."""
    rng = np.random.default_rng(list(document.ids))
    size = (len(document.ids), lane.width) if lane.level == "token" else lane.width
    values = rng.standard_normal(size, np.float32)
    if lane.options.get("count"):
        values = np.stack([np.arange(lane.options["count"]), values[: lane.options["count"]]])
    return values if document.kept is None else values[document.kept]


def service(name: str, folder: Path, settings: Settings = TINY, real: bool = True) -> Service:
    """A service of one of `models.MODELS`, whose programs are compiled, or else `Counting`."""
    path = folder / name
    bert = ModernBert.from_pretrained(path if path.exists() else models.write(name, path))
    made = Service(bert, f"tiny/{name}", settings)
    if real:
        made.programs.compile()
        return made
    longest = made.reader.longest_document
    return Service(bert, made.name, settings, Counting(bert, longest, settings.batch_tokens))


def like(other: Service, settings: Settings) -> Service:
    """A service with other limits and the programs of another one."""
    return Service(other.bert, other.name, settings, other.programs)


@contextlib.contextmanager
def client(made: Service, keys: Collection[str] = ()) -> Iterator[TestClient]:
    """A client of the application in this process."""
    with TestClient(create_app(made, keys), raise_server_exceptions=False) as own:
        yield own


@contextlib.contextmanager
def running(made: Service, keys: Collection[str] = ()) -> Iterator[int]:
    """Serve in a thread; yields the port."""
    with server.bind("127.0.0.1", 0) as bound:
        own = server.make_server(made, keys)
        thread = threading.Thread(target=own.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not own.started and thread.is_alive():
            thread.join(0.01)
        try:
            yield bound.getsockname()[1]
        finally:
            own.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def post(port: int, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, content, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
