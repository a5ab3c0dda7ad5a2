"""The `encode` suite: sides in processes of their own that must agree."""

import numpy as np
import pytest
import tiny

from modernbert_jax.train.bench import encode
from modernbert_jax.train.bench.encode_worker import PEERS


def test_workloads_are_what_their_names_say():
    workloads = encode.workloads()
    assert workloads["8 full rows of 512 tokens"].lengths == [512] * 8
    mixed = workloads["64 documents of 16 to 512 tokens"].lengths
    assert len(mixed) == 64 and min(mixed) >= 16 and max(mixed) <= 512
    assert {peer for work in workloads.values() for peer in work.peers} == set(encode.PEERS)
    assert set(encode.PEERS) == set(PEERS)


def test_sides_take_turns_and_agree():
    """Beside PyTorch if it is installed; otherwise ours alone."""
    workloads = {"a few": encode.EncodeWorkload([40, 7, 20], tuple(encode.PEERS), axis="tensor")}
    speed, *more, memory, working = encode.compare(tiny.config(), workloads, repeats=1)
    assert len(more) == (1 if encode.peer_installed() else 0)
    assert speed.unit == "tokens/s" and speed.ours > 0
    assert memory.unit == "GB" and 0.05 < memory.ours < 20
    assert 0 < working.ours < memory.ours
    assert (speed.ratio is not None) == encode.peer_installed()


def test_a_disagreement_is_an_error(monkeypatch):
    def take_turns(script, arguments, sides, repeats, enough):
        folder, _ = arguments
        for i, side in enumerate(sides):
            np.save(folder / f"{side}.npy", np.full((2, 3), 1e-3 * i))
        return {}, {}

    monkeypatch.setattr(encode, "peer_installed", lambda: True)
    monkeypatch.setattr(encode, "write_random", lambda *_: None)
    monkeypatch.setattr(encode, "take_turns", take_turns)
    workload = {"two": encode.EncodeWorkload([2], ("peer",))}
    with pytest.raises(RuntimeError, match=r"peer differ from ours by 1\.0e-03"):
        next(encode.compare(tiny.config(), workload, repeats=1))
