"""Masks: the right shares, nothing that must not be hidden, a function of the key alone."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from modernbert_jax.masking import IGNORE, mask_tokens

VOCAB, SPECIAL, MASK = 60, (0, 1, 58, 59), 58
SETTINGS = {"mask_id": MASK, "vocab_size": VOCAB, "special_ids": SPECIAL}


@functools.partial(jax.jit, static_argnames=("rate", "mask_share", "random_share", "settings"))
def masked(seed, tokens, segments, rate=0.3, settings=(), **shares):
    return mask_tokens(
        jax.random.key(seed), tokens, segments, rate=rate, **SETTINGS, **dict(settings), **shares
    )


@pytest.fixture(scope="module")
def batch():
    """Documents that begin and end with special tokens, and padding made of an ordinary token."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 58, (64, 512), dtype=np.int32)
    tokens[:, ::50], tokens[:, 49::50] = 0, 1
    segments = np.repeat(np.arange(1, 12, dtype=np.int32), 50)[None, :512].repeat(64, axis=0)
    segments[:, 480:] = 0
    return tokens, segments


def ordinary(batch):
    tokens, segments = batch
    return (segments > 0) & ~np.isin(tokens, SPECIAL)


def near(share, wanted, n):
    """Within four standard deviations of a binomial share."""
    return abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / n)


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.3])
def test_the_rate(batch, rate):
    _, labels = masked(1, *batch, rate=rate)
    can = ordinary(batch)
    assert near((np.asarray(labels)[can] != IGNORE).mean(), rate, can.sum())


def test_eighty_ten_ten(batch):
    tokens, _ = batch
    inputs, labels = (np.asarray(x) for x in masked(2, *batch))
    chosen = labels != IGNORE
    n = chosen.sum()
    hidden = inputs[chosen] == MASK
    same = inputs[chosen] == tokens[chosen]
    assert near(hidden.mean(), 0.8, n)
    # A random token is the token itself once in 56.
    assert near(same.mean(), 0.1 + 0.1 / 56, n)
    assert near((~hidden & ~same).mean(), 0.1 - 0.1 / 56, n)


def test_other_shares(batch):
    tokens, _ = batch
    inputs, labels = masked(3, *batch, mask_share=1.0, random_share=0.0)
    chosen = np.asarray(labels) != IGNORE
    assert (np.asarray(inputs)[chosen] == MASK).all()
    inputs, labels = masked(3, *batch, mask_share=0.0, random_share=0.0)
    np.testing.assert_array_equal(inputs, tokens)
    assert (np.asarray(labels) != IGNORE).any()


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_special_tokens_and_padding_are_never_chosen(batch, rate):
    tokens, _ = batch
    inputs, labels = (np.asarray(x) for x in masked(4, *batch, rate=rate))
    never = ~ordinary(batch)
    assert (labels[never] == IGNORE).all()
    np.testing.assert_array_equal(inputs[never], tokens[never])
    if rate == 1.0:
        assert (labels[~never] != IGNORE).all()


def test_labels_are_the_original_tokens_and_the_rest_is_unchanged(batch):
    tokens, _ = batch
    inputs, labels = (np.asarray(x) for x in masked(5, *batch))
    chosen = labels != IGNORE
    np.testing.assert_array_equal(labels[chosen], tokens[chosen])
    np.testing.assert_array_equal(inputs[~chosen], tokens[~chosen])
    assert inputs.dtype == labels.dtype == np.int32


def test_random_tokens_are_uniform_over_the_ordinary_vocabulary(batch):
    inputs, labels = (np.asarray(x) for x in masked(6, *batch, mask_share=0.0, random_share=1.0))
    drawn = inputs[labels != IGNORE]
    counts = np.bincount(drawn, minlength=VOCAB)
    assert not counts[list(SPECIAL)].any()
    usual = np.delete(counts, SPECIAL)
    assert usual.min() > 0
    expected = len(drawn) / 56
    assert ((usual - expected) ** 2 / expected).sum() < 56 + 5 * np.sqrt(2 * 56)  # chi squared


def test_the_fate_does_not_depend_on_the_token(batch):
    """Chosen tokens are spread evenly over rows and columns."""
    _, labels = masked(7, *batch)
    chosen, can = np.asarray(labels) != IGNORE, ordinary(batch)
    for axis in (0, 1):
        some = can.sum(axis) > 0
        shares = chosen.sum(axis)[some] / can.sum(axis)[some]
        error = np.sqrt(0.21 / can.sum(axis)[some])
        assert (np.abs(shares - 0.3) < 5 * error).all()


def test_a_function_of_the_key(batch):
    first, again, other = masked(8, *batch), masked(8, *batch), masked(9, *batch)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    chosen, elsewhere = (np.asarray(x[1]) != IGNORE for x in (first, other))
    overlap = (chosen & elsewhere).sum() / chosen.sum()
    assert 0.25 < overlap < 0.35, "two keys choose independently"


def legacy(seed, batch, **shares):
    settings = (("legacy", True),)
    return (np.asarray(x) for x in masked(seed, *batch, settings=settings, **shares))


def test_legacy_masks_special_tokens_like_any_other(batch):
    tokens, segments = batch
    inputs, labels = legacy(10, batch)
    real = segments > 0
    for kind in (np.isin(tokens, SPECIAL) & real, ordinary(batch)):
        chosen = labels[kind] != IGNORE
        assert near(chosen.mean(), 0.3, kind.sum())
        assert near((inputs[kind] == MASK).mean(), 0.24 + 0.03 / 59, kind.sum())
    np.testing.assert_array_equal(labels[labels != IGNORE], tokens[labels != IGNORE])


def test_legacy_hides_padding_but_does_not_predict_it(batch):
    _, segments = batch
    inputs, labels = legacy(11, batch)
    padding = segments == 0
    assert (labels[padding] == IGNORE).all()
    assert near((inputs[padding] == MASK).mean(), 0.24 + 0.03 / 59, padding.sum())


def test_legacy_draws_up_to_the_largest_id_of_the_masked_batch():
    tokens, segments = np.full((64, 512), 7, np.int32), np.ones((64, 512), np.int32)
    inputs, labels = legacy(12, (tokens, segments), mask_share=0.0, random_share=1.0)
    assert set(inputs[labels != IGNORE]) == set(range(8))
    inputs, _ = legacy(12, (tokens, segments))
    assert set(np.unique(inputs)) == set(range(MASK + 1)), "the mask's id is the largest by then"


def test_ids_that_fill_up_the_vocabulary_are_not_drawn_but_can_be_chosen(batch):
    unused = (20, 21, 22, 40, 57)
    draw_all = {"rate": 1.0, "mask_share": 0.0, "random_share": 1.0}
    inputs, labels = masked(13, *batch, settings=(("unused_ids", unused),), **draw_all)
    inputs, can = np.asarray(inputs), ordinary(batch)
    assert (np.asarray(labels)[can] != IGNORE).all()
    assert set(inputs[can]) == set(range(VOCAB)) - {*SPECIAL, *unused}


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    rate=st.floats(0.01, 1.0),
    special=st.sets(st.integers(0, 30), min_size=1, max_size=12),
    unused=st.sets(st.integers(0, 39), max_size=12),
    legacy=st.booleans(),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_whatever_the_ids_only_the_right_positions_change(seed, rate, special, unused, legacy):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 40, (4, 64), dtype=np.int32)
    segments = np.repeat([[1, 2, 0]], [30, 20, 14], axis=1).repeat(4, axis=0)
    mask_id = min(special)
    inputs, labels = map(
        np.asarray,
        mask_tokens(
            jax.random.key(seed),
            tokens,
            segments,
            rate=rate,
            mask_id=mask_id,
            vocab_size=40,
            special_ids=tuple(special),
            unused_ids=tuple(unused),
            legacy=legacy,
        ),
    )
    chosen = labels != IGNORE
    np.testing.assert_array_equal(labels[chosen], tokens[chosen])
    assert not chosen[segments == 0].any() and inputs.min() >= 0 and inputs.max() < 40
    if legacy:
        return
    assert not chosen[np.isin(tokens, list(special))].any()
    np.testing.assert_array_equal(inputs[~chosen], tokens[~chosen])
    put = set(inputs[chosen & (inputs != tokens)].tolist())
    assert not put & ((special | unused) - {mask_id})


def test_the_order_of_special_ids_does_not_matter():
    tokens, segments = jnp.full((1, 400), 30), jnp.ones((1, 400), jnp.int32)
    results = [
        mask_tokens(
            jax.random.key(0), tokens, segments, rate=0.9, **SETTINGS | {"special_ids": ids}
        )[0]
        for ids in ((0, 1, 58, 59), (59, 1, 0, 58, 1))
    ]
    np.testing.assert_array_equal(*results)
