"""The encode suite: sides in processes of their own that have to agree."""

import numpy as np
import pytest
import tiny

from modernbert_jax.train.bench import Options, encode, run
from modernbert_jax.train.bench.encode_worker import PEERS


def test_workloads_are_what_their_names_say():
    given = encode.workloads()
    assert given["8 full rows of 512 tokens"].lengths == [512] * 8
    mixed = given["64 documents of 16 to 512 tokens"].lengths
    assert len(mixed) == 64 and min(mixed) >= 16 and max(mixed) <= 512
    assert {peer for work in given.values() for peer in work.peers} == set(encode.PEERS)
    assert set(encode.PEERS) == set(PEERS)


def test_sides_take_turns_and_agree():
    """With PyTorch installed, against it; else ours alone."""
    given = {"a few": encode.EncodeWorkload([40, 7, 20], tuple(encode.PEERS), axis="tensor")}
    speed, *more, memory, working = encode.compare(tiny.config(), given, repeats=1)
    assert len(more) == (1 if encode.peer_installed() else 0)
    assert speed.unit == "tokens/s" and speed.ours > 0
    assert memory.unit == "GB" and 0.05 < memory.ours < 20
    assert 0 < working.ours < memory.ours
    assert (speed.ratio is not None) == encode.peer_installed()


def test_a_disagreement_is_an_error(monkeypatch):
    monkeypatch.setattr(encode, "peer_installed", lambda: True)
    monkeypatch.setattr(encode, "write_random", lambda *_: None)
    monkeypatch.setattr(encode, "answer", lambda *_: {})
    hidden = {"ours.npy": np.zeros((2, 3)), "peer.npy": np.full((2, 3), 1e-3)}
    monkeypatch.setattr(encode.np, "load", lambda path: hidden[path.name])
    worker = encode.contextlib.nullcontext
    monkeypatch.setattr(encode, "worker", lambda *_: worker())
    with pytest.raises(RuntimeError, match=r"peer differ from ours by 1\.0e-03"):
        next(
            encode.compare(tiny.config(), {"two": encode.EncodeWorkload([2], ("peer",))}, repeats=1)
        )


def test_no_turn_begins_after_long_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "worker", lambda *_: encode.contextlib.nullcontext())
    for name in ("answer", "again"):
        monkeypatch.setattr(encode, name, lambda *_: {"seconds": 1.0})
    monkeypatch.setattr(encode.np, "load", lambda path: np.zeros(1))

    def turns():
        found = encode._take_turns(tmp_path, [[1]], ("ours", "peer"), 3, tmp_path, "data")
        return [len(each) for each in found.values()]

    assert turns() == [3, 3]
    monkeypatch.setattr(encode, "ENOUGH", 0.0)
    assert turns() == [1, 1]


def test_a_worker_that_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "write_random", lambda *_: None)
    with pytest.raises(RuntimeError, match="the process of ours ended with exit code 1"):
        next(encode.compare(tiny.config(), {"one": encode.EncodeWorkload([2], ())}, repeats=1))


def test_an_unknown_suite_is_named():
    with pytest.raises(Exception, match="no suite 'encod'; did you mean 'encode'"):
        run(["encod"], Options())
