"""The efficiency benchmark beside the real transformers: both sides compute the same vectors."""

import pytest
import tiny

from modernbert_jax.config import PRESETS
from modernbert_jax.train.bench.efficiency import comparison
from modernbert_jax.train.bench.efficiency.settings import Settings

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_sides_agree_and_are_measured(monkeypatch, dtype):
    small = tiny.config(hidden_size=64, max_position_embeddings=1024)
    monkeypatch.setitem(PRESETS, "small", small)
    settings = Settings(
        model="small", documents=5, long_documents=2, passes=2, dtype=dtype, sides=("ours", "sdpa")
    )
    results = [*comparison.compare(settings, print)]
    assert [(r.side, r.size, r.spread) for r in results] == [
        (side, size, spread)
        for size in ("short", "long")
        for side in ("ours", "sdpa")
        for spread in ("fixed", "variable")
    ]
    for r in results:
        assert r.passes == 2 and r.seconds > 0 and r.gigabytes > 0.1 and r.device == "cpu"
    long = [r.tokens for r in results if r.size == "long" and r.spread == "fixed"]
    assert long == [2048, 2048]
