"""Parts of `bench device` that go wrong, each in its own way, after a first result."""

import os
import signal
import time

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench.device.registry import Part
from modernbert_jax.train.bench.device.results import Number, Result, attempt, needs

FIRST = Result(name="first", numbers={"time": Number(1.0, "ms")})


def good(scale):
    yield FIRST
    yield attempt("second", {}, lambda: {"speed": Number(2.0, "tokens/s")})


def raising(scale):
    yield FIRST
    raise ValueError("no such luck")


def crashing(scale):
    yield FIRST
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(scale):
    yield FIRST
    time.sleep(600)


def without_torch(scale):
    with needs("torch"):
        import torch_that_is_not_installed  # noqa: F401
    yield FIRST


def unsupported(scale):
    def refuse():
        raise UserError("it is for another device")

    yield attempt("kernel", {}, refuse)
    yield FIRST


def out_of_memory(scale):
    def exhaust():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte")

    yield attempt("large", {}, exhaust)
    yield FIRST


def part(function, **changes) -> Part:
    values = {"name": function.__name__, "group": "test", "function": function, "seconds": 1.0}
    return Part(**values | changes)
