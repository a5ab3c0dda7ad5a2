"""The `train` suite: sides in processes of their own that agree on loss and gradient."""

import numpy as np
import pytest
import tiny

from modernbert_jax.train.bench import train
from modernbert_jax.train.bench.encode import peer_installed
from modernbert_jax.train.bench.train_worker import SIDES, documents


def test_workloads_are_what_their_names_say():
    for steps in (1, 8):
        mixed, full = train.workloads(steps, 4, "data").values()
        assert min(mixed.lengths) == 16 and max(mixed.lengths) == 512
        assert len(mixed.lengths) == 256 >= mixed.documents * steps
        assert full.lengths == [1024] * full.rows * steps
    batches = np.reshape(mixed.lengths, (16, 16))
    assert batches.max(axis=1).min() > 320  # no batch has little padding by luck
    assert batches.mean(axis=1) == pytest.approx(np.mean(mixed.lengths), rel=0.2)
    assert set(train.PEERS) < set(SIDES)


def test_documents_are_cut_where_they_end():
    work = {"ids": np.arange(6), "lengths": np.array([1, 3, 2])}
    assert [d.tolist() for d in documents(work)] == [[0], [1, 2, 3], [4, 5]]


@pytest.mark.parametrize("together", (pytest.param(True, marks=pytest.mark.slow), False))
def test_sides_take_turns_and_agree(together):
    """Beside PyTorch if it is installed; otherwise ours alone."""
    lengths = [90, 100, 80, 70, 7, 20]
    work = train.TrainWorkload(lengths, 2, 128, documents=2, steps=2, together=together)
    result = list(train.compare("a few", tiny.config(num_hidden_layers=1), work, repeats=1))
    assert {m.unit for m in result} == {"tokens/s", "tokens/CPU s"}
    assert len(result) == 2 * (len(train.PEERS) if peer_installed() else 1)
    assert all(m.ours > 0 and (m.ratio is not None) == peer_installed() for m in result)


def test_a_disagreement_is_an_error(monkeypatch):
    ready = {"ours": {"loss": 2.0, "grad_norm": 1.0}, "peer": {"loss": 2.0, "grad_norm": 1.01}}
    monkeypatch.setattr(train, "take_turns", lambda *_: (ready, {}))
    monkeypatch.setattr(train, "write_random", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"grad_norm of peer differs from ours by 1\.0e-02"):
        next(
            train.compare(
                "two", tiny.config(), train.workloads(1, 2, "fsdp").popitem()[1], repeats=1
            )
        )
