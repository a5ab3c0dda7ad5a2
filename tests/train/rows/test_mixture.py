"""The order of a mixture: proportions, exhaustion, and random access."""

import fractions
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from modernbert_jax import UserError
from modernbert_jax.train.rows.mixture import BLOCK, Order, Share

shares = st.dictionaries(
    st.sampled_from(["books", "code", "news", "web", "wiki"]),
    st.builds(
        Share,
        rows=st.integers(1, 400),
        tokens=st.integers(400, 100_000),
        weight=st.integers(1, 9).map(float),
        epochs=st.none() | st.sampled_from([0.5, 1.0, 1.7, 3.0]),
    ),
    min_size=1,
)


def slowly(parts: dict[str, Share], count: int) -> list[fractions.Fraction]:
    """The rule applied row by row in exact fractions: the time of each position."""
    names = sorted(parts)
    caps = [round(parts[n].epochs * parts[n].rows) if parts[n].epochs else 10**9 for n in names]
    read, result = [0] * len(names), []
    while len(result) < count and any(r < c for r, c in zip(read, caps, strict=True)):
        times = [due(parts[n], k) for n, k in zip(names, read, strict=True)]
        i = min((i for i in range(len(names)) if read[i] < caps[i]), key=times.__getitem__)
        result.append(times[i])
        read[i] += 1
    return result


def due(part: Share, row: int) -> fractions.Fraction:
    """Time of a row: (k + 1/2) / rate."""
    return (row + fractions.Fraction(1, 2)) / (
        fractions.Fraction(part.weight) * part.rows / part.tokens
    )


@hypothesis.given(parts=shares)
@hypothesis.settings(max_examples=40, deadline=None)
def test_follows_the_rule_at_every_position(parts):
    order, count = Order(parts), BLOCK + 200
    actual = [order[i] for i in range(min(len(order), count))]
    times = [float(due(parts[order.names[c]], k)) for c, k in actual]
    np.testing.assert_allclose(times, [float(t) for t in slowly(parts, count)], rtol=1e-12)
    for i in range(len(order.names)):  # each component's rows in turn, none left out
        assert (read := [k for c, k in actual if c == i]) == list(range(len(read)))


@hypothesis.given(parts=shares, position=st.integers(0, 10**12), ahead=st.integers(1, 3 * BLOCK))
@hypothesis.settings(max_examples=60, deadline=None)
def test_counts_are_what_was_read(parts, position, ahead):
    order = Order(parts)
    hypothesis.assume(len(order) > 0)
    position %= max(len(order) - ahead, 1)
    ahead = min(ahead, len(order) - position)
    before, after = order.counts(position), order.counts(position + ahead)
    assert before.sum() == position and after.sum() == position + ahead
    components = order.components(position, position + ahead)
    np.testing.assert_array_equal(
        after - before, np.bincount(components, minlength=len(order.names))
    )
    first = order[position]
    assert first == (components[0], before[components[0]])
    last = order[position + ahead - 1]
    assert last == (components[-1], after[components[-1]] - 1)


@hypothesis.given(parts=shares)
@hypothesis.settings(max_examples=30, deadline=None)
def test_every_row_of_every_epoch_comes_exactly_once(parts):
    capped = {
        name: Share(rows=s.rows, tokens=s.tokens, weight=s.weight, epochs=s.epochs or 2.0)
        for name, s in parts.items()
    }
    order = Order(capped)
    read = [order[i] for i in range(len(order))]
    assert len(set(read)) == len(read)
    for i, name in enumerate(order.names):
        wanted = round(capped[name].epochs * capped[name].rows)
        assert [k for c, k in read if c == i] == list(range(wanted))


def test_weights_are_tokens_not_rows():
    full, half = (
        Share(rows=1000, tokens=64_000, weight=3),
        Share(rows=1000, tokens=32_000, weight=1),
    )
    order = Order({"full": full, "half": half})
    counts = order.counts(5000)
    tokens = counts * [64, 32]
    assert tokens[0] / tokens[1] == pytest.approx(3, rel=1e-3)
    for start in range(0, 4000, 100):  # in any range, not only overall
        n = np.bincount(order.components(start, start + 50), minlength=2) * [64, 32]
        assert abs(n[0] - 0.75 * n.sum()) <= 64


def test_a_component_that_is_used_up_drops_out_and_the_rest_keep_their_proportions():
    parts = {
        "little": Share(rows=10, tokens=100, weight=1, epochs=2.5),
        "much": Share(rows=10**9, tokens=10**10, weight=1),
        "more": Share(rows=10**9, tokens=10**10, weight=2),
    }
    order = Order(parts)
    assert order.names == ("little", "more", "much") and len(order) == sys.maxsize
    assert order.counts(80).tolist() == [20, 40, 20]
    assert order.counts(10_000)[0] == 25
    later = np.bincount(order.components(10_000, 13_000), minlength=3)
    assert later[0] == 0 and abs(later[1] - 2 * later[2]) <= 2
    assert order.epochs(10_000)[0] == 2.5


def test_without_weights_every_component_lasts_for_its_epochs():
    parts = {
        "once": Share(rows=900, tokens=9000, epochs=1),
        "thrice": Share(rows=100, tokens=1000, epochs=3),
    }
    order = Order(parts)
    assert len(order) == 1200
    np.testing.assert_allclose(order.epochs(600), [0.5, 1.5], rtol=0.01)


def test_far_positions_are_quick_and_consistent():
    parts = {f"c{i:02d}": Share(rows=10**8, tokens=10**11, weight=1 + i) for i in range(20)}
    order = Order(parts)
    at = 3 * 10**9 + 7
    assert order.counts(at).sum() == at
    component, row = order[at]
    assert order.counts(at + 1)[component] == row + 1


def test_a_weight_for_some_only():
    with pytest.raises(UserError, match="mixture: b has no weight and others have"):
        Order({"a": Share(rows=1, tokens=1, weight=1.0), "b": Share(rows=1, tokens=1)})
