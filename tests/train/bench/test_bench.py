"""The `data` suite: its peer behaves as documented, and its numbers are real."""

import json
import sys
from pathlib import Path

import corpus
import numpy as np
import pytest

from modernbert_jax import UserError, cli
from modernbert_jax.train import bench
from modernbert_jax.train.bench import data, peer

PACKING = Path(__file__).parents[2] / "fixtures" / "packing"


@pytest.mark.parametrize("name", ["research_1024", "research_8192"])
@pytest.mark.parametrize("search", [peer.best_fit, peer.best_fit_numpy])
def test_the_peer_packs_as_the_research_code_did(name, search):
    with np.load(PACKING / f"{name}.npz") as recorded:
        rows, capacity, buffer = (int(recorded[k]) for k in ("rows", "row_length", "buffer"))
        wanted, lengths = recorded["efficiency"], recorded["lengths"].tolist()
    batches = list(peer.pack([range(n) for n in lengths], rows, capacity, buffer // 5, search))
    filled = [sum(len(item) for row in batch for item in row) for batch in batches]
    np.testing.assert_allclose(np.array(filled) / (rows * capacity), wanted, rtol=1e-6)


def test_the_peer_lays_rows_out():
    batch = [[np.arange(3), np.arange(2)], [np.arange(4)]]
    assert peer.filled(batch, 6, pad_id=9).tolist() == [[0, 1, 2, 0, 1, 9], [0, 1, 2, 3, 9, 9]]


def test_the_peer_masks_in_one_draw():
    ids = np.full((4, 5000), 7)
    inputs, labels = peer.masked(ids, np.random.default_rng(0), mask_id=9)
    assert set(labels.ravel()) == {7, -100} and (labels == 7).mean() == pytest.approx(0.3, abs=0.02)
    assert (inputs == 9).mean() == pytest.approx(0.24 + 0.003, abs=0.02) and inputs.max() == 9
    assert (inputs[labels == -100] == 7).all()


def test_the_command(tmp_path, capsys, monkeypatch):
    """Without the peer's packages, as where only the library is installed."""
    monkeypatch.setattr(data, "DOCUMENTS", 500)
    monkeypatch.setattr(data, "LENGTH", 128)
    monkeypatch.setattr(data, "SOURCE_BATCH", 8)
    monkeypatch.setitem(sys.modules, "datasets", None)
    text = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    corpus.make_tokenizer().save(tmp_path)
    args = ["bench", "data", "--input", str(text), "--tokenizer", str(tmp_path), "--repeats", "1"]
    assert cli.main([*args, "--json", str(tmp_path / "bench.json")]) == 0
    assert "tokenise and pack" in capsys.readouterr().out
    result = {row["name"]: row for row in json.loads((tmp_path / "bench.json").read_text())}
    assert set(result) == {"tokenise and pack", "read packed rows", "plan rows", "fill rows"}
    assert all(row["suite"] == "data" and row["ours"] > 0 for row in result.values())
    assert result["tokenise and pack"]["peer"] is None and result["plan rows"]["ratio"] > 0
    assert 90 < result["fill rows"]["ours"] <= 100


def test_text_is_taken_from_every_file_and_no_more_than_asked(tmp_path):
    for name in ("a", "b"):
        corpus.write_jsonl(tmp_path / f"{name}.jsonl", [name * 100] * 50)
    options = bench.Options(input=(str(tmp_path / "*.jsonl"),), megabytes=0.004)
    lines = data.write_texts(options, tmp_path / "texts").read_text().splitlines()
    assert [json.loads(line)["text"][0] for line in lines] == ["a"] * 20 + ["b"] * 20


def test_an_unknown_suite():
    with pytest.raises(UserError, match="did you mean 'data'"):
        bench.run(["dta"], bench.Options())


def test_a_measurement_for_each_peer_or_one_without():
    peers = {"a": "first", "b": "second"}
    both = list(bench.compared("x", "s", {"ours": 3.0, "a": 1.0, "b": 2.0}, peers))
    assert [(m.peer_name, m.ratio) for m in both] == [("first", 3.0), ("second", 1.5)]
    (alone,) = bench.compared("x", "s", {"ours": 3.0}, peers)
    assert (alone.ours, alone.peer, alone.peer_name) == (3.0, None, "")


def test_ratio_and_numbers():
    assert bench.Measurement(name="a", unit="b", ours=6.0, peer=4.0).ratio == 1.5
    assert bench.Measurement(name="a", unit="b", ours=6.0).ratio is None
    assert [bench.number(x) for x in (1234567.8, 99.87, 1.5)] == ["1,234,568", "99.9", "1.5"]
