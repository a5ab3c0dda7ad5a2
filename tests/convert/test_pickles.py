"""Pickles: values that torch writes are read, and no other name is imported."""

import collections
import datetime
import json
import pickle

import hf_directory
import numpy as np
import pytest
import torch_archive

from modernbert_jax import cli
from modernbert_jax.convert.flexbert import plain
from modernbert_jax.convert.huggingface import weight_files
from modernbert_jax.convert.torch_files import archives, pickles
from modernbert_jax.convert.torch_files.pickle_names import Inert
from modernbert_jax.errors import UserError

CASES = torch_archive.malicious("CANARY")


@pytest.mark.parametrize("name", CASES)
def test_malicious_pickles_are_refused_and_nothing_is_executed(tmp_path, name):
    canary = tmp_path / "canary"
    data = torch_archive.malicious(canary)[name]
    path = torch_archive.write(tmp_path / weight_files.PICKLE, data)
    with pytest.raises(UserError) as error:
        for x in archives.state_dict(path).values():
            np.asarray(x)
    assert not canary.exists()
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["reduce, protocol 2", "build of a dict's attributes"])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "latest-rank0.pt"])
def test_the_program_says_so_in_one_line(tmp_path, capsys, name, file):
    source = hf_directory.write(tmp_path / "source")
    (source / "model.safetensors").unlink()
    if file.endswith(".pt"):
        (source / "config.json").unlink()
    torch_archive.write(source / file, torch_archive.malicious(tmp_path / "canary")[name])
    for command in (["convert", source, tmp_path / "out"], ["inspect", source]):
        assert cli.main([str(a) for a in command]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert file in line and "posix.system" in line and "nothing of it was executed" in line
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_the_canary_would_sing(tmp_path):
    pickle.loads(torch_archive.malicious(tmp_path / "canary")["reduce, protocol 2"])
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -1, 2**31, -(2**40), 0.5, None, True, False, "ä\n", ("x", ()), {1: {}}]},
        [[]] * 3,
        [{str(i): i for i in range(3000)}],
        {"long": "x" * 70_000, "numbers": list(range(70_000))},
        2**100,
    ],
)
def test_plain_values(value):
    assert pickles.read(pickle.dumps(value, 2)) == value


def test_containers_of_other_kinds():
    value = {
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=2),
        "bytes": b"\x00\xff",
    }
    want = {"ordered": {"a": 1}, "default": {"a": 2}, "bytes": b"\x00\xff"}
    assert pickles.read(pickle.dumps(value, 2)) == want


def test_the_state_of_a_run_is_passed_over():
    state = {
        "clock": datetime.timedelta(seconds=3),
        "random": np.random.default_rng(0).random(3),
        "set": {1},
        "after": 1,
    }
    value = pickles.read(pickle.dumps(state, 2))
    assert {type(v) for k, v in value.items() if k != "after"} == {Inert} and value["after"] == 1
    attributes = b"}X\x01\x00\x00\x00ac__builtin__\nset\n]\x85Rs"
    clock = b"\x80\x02ccomposer.core.time\nTimestamp\n)\x81" + attributes + b"b."
    assert type(pickles.read(clock)) is Inert


def test_every_prefix_is_refused():
    for end in range(len(torch_archive.ONE)):
        with pytest.raises(UserError):
            pickles.read(torch_archive.ONE[:end])
    assert [*pickles.read(torch_archive.ONE)] == ["a"]


def test_limits(monkeypatch):
    monkeypatch.setattr(pickles, "INSTRUCTIONS", 10)
    with pytest.raises(UserError, match="of more than 10 instructions"):
        pickles.read(pickle.dumps([*range(100)], 2))
    monkeypatch.setattr(pickles, "BYTES", 10)
    with pytest.raises(UserError, match="at most 10 are read"):
        pickles.read(pickle.dumps([*range(100)], 2))


def test_plain_copies_end(monkeypatch):
    monkeypatch.setattr(plain, "MAX_NODES", 10_000)
    nested = [[]]
    for _ in range(100):
        nested = [nested, nested]
    with pytest.raises(UserError, match="nested without end"):
        plain.value(nested)
    shared = [1]
    for _ in range(40):
        shared = [shared, shared]
    with pytest.raises(UserError, match="nested without end"):
        plain.value(shared)
    nested = {"a": (1, {2: None}), "b": b"x", "c": Inert()}
    assert plain.value(nested) == {"a": [1, {"2": None}], "b": None, "c": None}
    json.dumps(plain.value(nested))


def nested(count: int) -> bytes:
    """A list that holds one list twice, which holds another twice, and so on."""
    data = b"]q\x00"
    for i in range(count):
        data += b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e"
    return data


LONG = (10**6).to_bytes(4, "little")
ENCODED = b"c_codecs\nencode\n(X" + LONG + b"a" * 10**6 + b"q\x00X\x06\x00\x00\x00latin1tR"
AGAIN = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
COLLIDING = (2**61 - 1, 2 * (2**61 - 1))
"""Numbers with one hash."""


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"(" + nested(40) + b"t", "more than 12,000,000 objects"),
        (nested(40) + STORAGE + b"h\x28tQ", "storage of a list"),
        (b"]q\x00h\x00a", "holds itself"),
        (b"]" + b"]" * 300 + b"a" * 300, "nested more than 200 deep"),
        (
            b"}(" + b"".join(b"\x8a\x10" + n.to_bytes(16, "little") + b"N" for n in COLLIDING),
            "key of more than 60 bits",
        ),
        (b"ctorch\nSize\n(" + b"N" * 100 + b"tR", "100 arguments"),
    ],
)
def test_small_pickles_that_grow_are_refused_at_once(data, key):
    end = b"u." if data.startswith(b"}(") else b"."
    with pytest.raises(UserError, match=key) as caught:
        pickles.read(b"\x80\x02" + data + end)
    assert len(str(caught.value)) < 200


def test_a_text_that_is_encoded_again_and_again_has_a_limit(monkeypatch):
    monkeypatch.setattr(pickles, "BYTES", 3 * 10**6)
    assert pickles.read(b"\x80\x02" + ENCODED + b".") == b"a" * 10**6
    listed = b"\x80\x02](" + ENCODED + AGAIN * 5 + b"e."
    with pytest.raises(UserError, match="encodes more than"):
        pickles.read(listed)
