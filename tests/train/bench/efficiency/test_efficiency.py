import io
import json

import models
import numpy as np
import pytest
import tiny
from program import run
from rich.console import Console

from modernbert_jax.config import PRESETS
from modernbert_jax.train.bench.efficiency import comparison, tables, worker
from modernbert_jax.train.bench.efficiency.documents import lengths
from modernbert_jax.train.bench.efficiency.settings import Settings, missing


@pytest.mark.parametrize(
    ("size", "tokens", "range_"),
    [("short", 2_096_510, (32, 476)), ("long", 33_604_913, (171, 7624))],
)
def test_lengths_are_the_papers(size, tokens, range_):
    """The paper's own draws are not known; ours have as many tokens to one in a hundred."""
    draws = lengths(size, "variable", 8192, 8192)
    assert sum(draws) == pytest.approx(tokens, rel=0.01)
    assert min(draws) >= range_[0] and max(draws) <= range_[1]
    assert set(lengths(size, "fixed", 3, 8192)) == {512 if size == "short" else 8192}


def test_lengths_fit_a_shorter_input():
    assert lengths("long", "fixed", 2, 2048) == [2048, 2048]
    assert max(lengths("long", "variable", 500, 2048)) <= 7624 / 4
    assert lengths("short", "fixed", 1, 7999) == [512]


@pytest.mark.parametrize("limit", [1, 2, 5, 100, 1000])
def test_the_largest_batch_is_found(limit):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    found = worker.largest(fits, 600, only_powers=False)
    assert found <= min(limit, 600) and found >= min(limit, 600) * 15 / 16 - 1
    power = worker.largest(fits, 600, only_powers=True)
    assert power == (600 if limit >= 600 else 1 << (limit.bit_length() - 1))
    assert len(tried) < 40


def test_a_device_without_room_is_told():
    with pytest.raises(MemoryError):
        worker.largest(lambda batch: False, 8, only_powers=True)
    assert worker.is_full(RuntimeError("RESOURCE_EXHAUSTED: 4 GB"))
    assert not worker.is_full(ValueError("shape"))


def test_sides_without_their_packages_are_left_out(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing("ours", "float32") is None
    assert missing("sdpa", "float32") == "torch, transformers not installed"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert missing("flash", "float32") == "it needs --dtype bfloat16"


def test_vectors_that_differ_are_told():
    ours = np.random.default_rng(0).standard_normal((4, 8))
    comparison._check({"ours": ours, "sdpa": ours * 2}, "float32")
    with pytest.raises(RuntimeError, match="vectors of sdpa and ours have a cosine of"):
        comparison._check({"ours": ours, "sdpa": ours[::-1]}, "float32")


def test_our_side_in_its_process(tmp_path, capsys, monkeypatch):
    """The documents of a model for 128 tokens have 128 tokens, in the table and in the file."""
    source = models.write("mean", tmp_path / "model")
    command = ["bench", "efficiency", "--model", source, "--sides", "ours", "--sizes", "short"]
    more = ["--documents", 6, "--passes", 2, "--json", tmp_path / "out.json"]
    monkeypatch.setattr(tables, "wide_console", lambda: Console(width=250, file=file))
    file = io.StringIO()
    code, _, err = run(capsys, *command, *more)
    assert code == 0, err
    fixed, variable = json.loads((tmp_path / "out.json").read_text())
    assert (fixed["tokens"], fixed["batch"], fixed["passes"]) == (6 * 128, 64, 2)
    assert fixed["device"] == "cpu" and 0 < variable["tokens"] < fixed["tokens"]
    assert fixed["speed"] == pytest.approx(6 * 128 / fixed["seconds"] / 1e3)
    assert fixed["gigabytes"] > 0.05
    table = file.getvalue()
    assert "modernbert-jax, packed" in table and "ModernBERT large" in table
    assert "148.1" in next(row for row in table.splitlines() if row.startswith("ModernBERT base"))


def test_a_preset_gets_random_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "small", tiny.config())
    config = comparison._write_model("small", tmp_path / "model")
    assert config.hidden_size == 32 and (tmp_path / "model" / "model.safetensors").exists()


def test_settings_name_what_is_wrong():
    assert Settings(long_documents=4).count("long") == 4
    with pytest.raises(Exception, match="passes is 0"):
        Settings(passes=0)
