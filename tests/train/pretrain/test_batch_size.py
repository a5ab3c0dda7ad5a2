"""Batch size warm-up: the research code's sizes, and a schedule that stays exact."""

import bisect
import json

import numpy as np
import pytest
from reference import FIXTURES

from modernbert_jax import UserError
from modernbert_jax.train.pretrain.batch_size import (
    BatchSizeSchedule,
    microbatches,
    thresholds,
)
from modernbert_jax.train.pretrain.config import Stage


def units_at(seen: int, first: int, last: int, tokens: int) -> int:
    """Return the units in the batch after `seen` tokens, in a warm-up over `tokens` tokens."""
    return first + bisect.bisect_right(thresholds(first, last, tokens), seen)


RECORDED = json.loads((FIXTURES / "batch_warmup.json").read_text())


@pytest.mark.parametrize("case", RECORDED)
def test_sizes_are_those_of_the_research_code(case):
    """The research code counts tokens of one of several devices, as does the fixture."""
    first, last, tokens, world = map(int, case.strip("()").split(","))
    own = -(-tokens // world)
    seen = np.linspace(0, own, len(RECORDED[case])).astype(int)
    assert [units_at(int(c), first, last, own) for c in seen] == RECORDED[case]


def test_thresholds_of_base():
    """Research code's documentation of stage 1: 768 rows until 3.33 B, 1,536 until 10 B, ..."""
    ends = [round(t / 1e9, 2) for t in thresholds(1, 6, 50 * 10**9)]
    assert ends == [3.33, 10.0, 20.0, 33.33, 50.0]


@pytest.mark.parametrize(
    ("rows", "unit", "warmup"),
    [(4608, 768, 50 * 10**9), (4928, 448, 10 * 10**9), (4608, 0, 0), (6, 2, 40_000)],
)
def test_every_step_has_the_size_that_follows_from_its_tokens(rows, unit, warmup):
    tokens, length = (1719 * 10**9, 1024) if rows > 100 else (10**6, 64)
    growth = BatchSizeSchedule(tokens, length, rows, unit, warmup)
    last = rows // unit if unit else 1
    row = 0
    for step in range(min(growth.steps, 30_000)):
        assert growth.rows_before(step) == row
        size = growth.at(step).rows
        assert size == (units_at(row * length, 1, last, warmup) * unit if unit else rows)
        row += size
    assert abs(growth.rows * length - tokens) <= rows * length / 2
    assert growth.rows_before(growth.steps) == growth.rows
    counts = [growth.end(s) - s.step for s in growth.phases[:-1]]
    assert max(counts, default=0) - min(counts, default=0) <= 1  # every size has equally many steps


def test_traced_time_is_the_rows_before():
    growth = BatchSizeSchedule(10**6, 64, 6, 2, 40_000)
    steps = np.arange(growth.steps + 1)
    assert growth.time(steps).tolist() == [growth.rows_before(int(s)) for s in steps]


def test_the_learning_rate_follows_tokens_and_not_steps():
    """The learning rate at a token count does not depend on batch size."""
    settings = {
        "name": "s",
        "tokens": 64 * 1200,
        "length": 64,
        "rows": 6,
        "peak_learning_rate": 1.0,
    }
    settings |= {"warmup_tokens": 64 * 90, "decay_tokens": 64 * 600, "final_fraction": 0.1}
    plain = Stage(**settings)
    grown = Stage(**settings, batch_warmup_rows=2, batch_warmup_tokens=64 * 300)
    by_tokens = {
        stage.batches.rows_before(step): float(stage.learning_rate()(step))
        for stage in (plain,)
        for step in range(stage.steps + 1)
    }
    shared = 0
    for step in range(grown.steps + 1):
        row = grown.batches.rows_before(step)
        if row in by_tokens:
            shared += 1
            assert float(grown.learning_rate()(step)) == pytest.approx(by_tokens[row], abs=1e-6)
    assert shared > 150 and grown.steps > plain.steps
    assert float(grown.learning_rate()(grown.steps)) == pytest.approx(0.1)


def test_microbatches():
    assert [microbatches(n, 768) for n in (768, 1536, 4608, 700, 1000)] == [1, 2, 6, 1, 2]
    assert microbatches(4608, 0) == 1 and microbatches(7, 4) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_warmup_rows": 4}, "batch_warmup_tokens is 0 and batch_warmup_rows 4"),
        ({"batch_warmup_rows": 4, "batch_warmup_tokens": 9}, "must divide the 6 rows"),
        ({"batch_warmup_rows": 2, "batch_warmup_tokens": 10**9}, "do not fit into the stage's"),
        ({"microbatch_rows": -1}, "microbatch_rows is -1"),
    ],
)
def test_invalid_sizes_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Stage(name="s", tokens=10**6, length=64, rows=6, peak_learning_rate=1.0, **changes)
