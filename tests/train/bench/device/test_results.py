"""Results as JSON, and exceptions as results."""

import json
import math

import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench.device.results import (
    FailedCheckError,
    MissingError,
    Number,
    Result,
    attempt,
)


def test_a_result_comes_back_from_json():
    numbers = {"time": Number(1.5, "ms"), "error": Number(math.nan, "")}
    result = Result(name="a", group="g", part="p", labels={"layer": "full"}, numbers=numbers)
    text = json.dumps(result.to_json(), allow_nan=False)
    again = Result.from_json(json.loads(text))
    assert again.numbers["time"] == Number(1.5, "ms")
    assert math.isnan(again.numbers["error"].value)
    assert again.labels == result.labels


@pytest.mark.parametrize(
    ("error", "status", "note"),
    [
        (UserError("it is for TPU"), "unsupported", "it is for TPU"),
        (NotImplementedError("no windows"), "unsupported", "no windows"),
        (ModuleNotFoundError("No module named 'torch'"), "missing", "No module named 'torch'"),
        (MissingError("needs flash_attn"), "missing", "needs flash_attn"),
        (MemoryError("1 GB"), "failed", "out of memory: 1 GB"),
        (RuntimeError("RESOURCE_EXHAUSTED: more"), "failed", "out of memory: RESOURCE_EXHAUSTED"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
def test_every_exception_has_a_status(error, status, note):
    def measure():
        raise error

    result = attempt("case", {"layer": "full"}, measure)
    assert (result.status, result.labels) == (status, {"layer": "full"})
    assert result.note.startswith(note)
    assert bool(result.trace) == (status == "failed")


def test_what_a_peer_cannot_do_fails_nothing():
    def measure():
        raise ValueError("no right window")

    result = attempt("case", {}, measure, peer=True)
    assert (result.status, result.note) == ("unsupported", "ValueError: no right window")
    assert result.trace


def test_a_failed_check_keeps_its_numbers():
    def measure():
        raise FailedCheckError("out is off by 0.5", {"out": Number(0.5, "")})

    result = attempt("case", {}, measure)
    assert (result.status, result.note) == ("failed", "out is off by 0.5")
    assert result.numbers["out"].value == 0.5
