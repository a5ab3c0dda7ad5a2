"""Batches: every example once an epoch, no text twice, a function of (seed, step)."""

import numpy as np
import pytest

from modernbert_jax.train.retrieval.sampling import Sampler, divide, repeated

rng = np.random.default_rng(0)
REPEATING = np.stack([rng.integers(0, 40, 101), 40 + rng.integers(0, 90, 101)], 1)
PLAIN = np.arange(74).reshape(37, 2)


def steps_of(sampler, start, end):
    return [sampler.members(step) for step in range(start, end)]


@pytest.mark.parametrize("rule", ["proportional", "round-robin"])
def test_every_example_once_an_epoch_and_no_text_twice(rule):
    sampler = Sampler([REPEATING, PLAIN], 8, 3, rule=rule)
    for epoch in range(2):
        batches = steps_of(sampler, sampler.steps(epoch), sampler.steps(epoch + 1))
        for dataset, texts in enumerate((REPEATING, PLAIN)):
            own = [batch.examples for batch in batches if batch.dataset == dataset]
            seen = np.concatenate(own)
            assert len({*seen.tolist()}) == len(seen)
            if rule == "proportional":
                assert len(seen) == len(texts)
            for examples in own:
                assert len(examples) <= 8
                assert len(np.unique(texts[examples])) == texts[examples].size
        if rule == "round-robin":
            assert [batch.dataset for batch in batches] == [0, 1] * 5  # 37 examples: 5 batches


def test_batches_follow_from_seed_and_step():
    first, later, other = (Sampler([REPEATING, PLAIN], 8, seed) for seed in (3, 3, 4))
    end = first.steps(2.5)
    whole = steps_of(first, 0, end)
    resumed = steps_of(later, end - 3, end)  # without what came before
    for a, b in zip(whole[-3:], resumed, strict=True):
        assert a.dataset == b.dataset and (a.examples == b.examples).all()
    assert any(
        a.dataset != b.dataset or (a.examples[:1] != b.examples[:1]).any()
        for a, b in zip(whole, steps_of(other, 0, 10), strict=False)
    )
    assert first.epochs(first.steps(1)) == 1.0


def test_few_batches_are_short():
    """Deferred examples fill the next batches, rather than each one its own."""
    sampler = Sampler([REPEATING], 8, 0)
    lengths = [len(batch.examples) for batch in steps_of(sampler, 0, sampler.steps(1))]
    assert sum(lengths) == 101 and len(lengths) <= 101 // 8 + 4


def test_lengths_are_known_without_drawing():
    sampler = Sampler([PLAIN, PLAIN[:17]], 8, 0, least=2)
    assert sampler.steps(1.0) == 5 + 2 and sampler.steps(100) == 700  # 17 = 2 * 8 + 1 left out
    assert len(steps_of(sampler, 0, 7)) == 7 and sampler.left_out(0) == 1
    assert sampler.steps(0.5) == 4


def test_a_text_of_all_examples_leaves_batches_of_one():
    texts = np.stack([np.zeros(4, int), np.arange(1, 5)], 1)
    assert [len(batch) for batch in divide(np.arange(4), repeated(texts), 2)] == [1] * 4
    sampler = Sampler([texts], 2, 0, least=2)
    assert sampler.steps(3) == 0 and sampler.left_out(0) == 4
    assert Sampler([texts], 2, 0, unique=False).steps(1) == 2


def test_missing_texts_are_not_shared():
    texts = np.array([[0, 1, -1], [2, 3, -1], [4, 5, 6]])
    assert repeated(texts) == []
