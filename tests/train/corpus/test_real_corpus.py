"""The whole data path on a real corpus: what small ones cannot show. Minutes; see `CORPUS`."""

import os
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.corpus import data_report
from modernbert_jax.train.corpus.components import Part
from modernbert_jax.train.corpus.prepare import prepare
from modernbert_jax.train.corpus.sources import Corpus
from modernbert_jax.train.pretrain.objective import MaskRule
from modernbert_jax.train.rows.data import Host, Prepared

CORPUS = os.environ.get("MODERNBERT_JAX_CORPUS", "")
"""A folder with `tokenizer.json` and `corpus/*.jsonl.zst`; each file becomes a component."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORPUS, reason="MODERNBERT_JAX_CORPUS names no corpus"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("real") / "data"
    files = sorted(Path(CORPUS, "corpus").glob("*.jsonl.zst"))
    parts = {
        path.name.split(".")[0]: Part(corpus=Corpus([path]), weight=1.0 + i)
        for i, path in enumerate(files)
    }
    prepare(parts, Tokenizer.load(CORPUS), folder, [1024, 8192])
    return Prepared(folder)


def test_rows_are_full_and_hold_every_token(data):
    found = data_report.facts(data)
    data.check([1024, 8192])
    for length, total in found["lengths"].items():
        assert total["efficiency"] > 0.998, length
        for component in found["components"].values():
            made = component["lengths"][length].values()
            rows = [r for r in made if isinstance(r, dict)]
            # [CLS] and [SEP] around each sample, and nothing else but the text.
            assert sum(r["tokens"] - 2 * r["samples"] for r in rows) == component["tokens"]


@pytest.mark.parametrize("length", [1024, 8192])
def test_hosts_that_come_and_go_see_the_same_batches_of_the_mixture(data, length):
    def read(number, count, start):
        each = [data.batches(length, 12, 3, start, host=Host(i, number)) for i in range(number)]
        for _ in range(count):
            parts = [next(batches).rows.token_ids for batches in each]
            yield np.concatenate(parts)
        for batches in each:
            batches.close()

    whole, at, tokens = read(1, 60, 0), 0, np.zeros(3)
    for number, count in ((1, 10), (2, 20), (4, 20), (3, 10)):
        for got in read(number, count, 12 * at):
            assert np.array_equal(got, next(whole))
        at += count
    batches = data.batches(length, 12, 3)
    for _ in range(60):
        batch = next(batches)
        tokens += np.bincount(batch.components, batch.tokens, minlength=3)
    batches.close()
    wanted = np.array([batches.order.weights[n] for n in batches.order.names])
    np.testing.assert_allclose(tokens / tokens.sum(), wanted / wanted.sum(), atol=0.01)


def test_masks_of_real_text(data):
    rule = MaskRule.of(data.tokenizer)
    batches = data.batches(1024, 64, 0)
    rows = next(batches).rows
    batches.close()
    inputs, labels = map(np.asarray, rule(jax.random.key(0), rows, 0.3))
    ids, segments = np.asarray(rows.token_ids), np.asarray(rows.segment_ids)
    special = np.isin(ids, rule.special_ids)
    chosen = labels >= 0
    assert not chosen[special].any() and special[segments > 0].sum() >= 2 * segments.max(1).sum()
    assert chosen[~special & (segments > 0)].mean() == pytest.approx(0.3, abs=0.01)
    drawn = inputs[chosen & (inputs != ids) & (inputs != rule.mask_id)]
    assert not np.isin(drawn, [*rule.special_ids, *rule.unused_ids]).any()
    assert drawn.max() > 49_000 and len(rule.unused_ids) == 83


def test_reading_keeps_up_with_a_large_machine(data):
    batches, best = data.batches(1024, 256, 0), 0.0
    for _ in range(3):
        began, tokens = time.process_time(), 0  # so, whatever else the machine does
        while (seconds := time.process_time() - began) < 2:
            tokens += int(next(batches).tokens.sum())
        best = max(best, tokens / seconds)
    batches.close()
    assert best > 2e6, f"{best:,.0f} tokens/s"
