"""Packing: nothing is lost or cut, rows are full, and the layout is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import FIXTURES

from modernbert_jax.errors import UserError
from modernbert_jax.packing import pack, rows_from


def check(rows, lengths, capacity):
    """Every document once, no row over the capacity, no empty row."""
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= capacity for row in rows)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(1, 300), st.integers(0, 9))
def test_every_document_is_in_one_full_row(data, capacity, seed):
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=200))
    rows = pack(lengths, capacity, seed=[seed, 1])
    check(rows, lengths, capacity)
    loads = sorted(sum(lengths[i] for i in row) for row in rows)
    assert len(loads) < 2 or loads[0] + loads[1] > capacity


def test_rooms_are_filled_exactly_where_one_or_two_documents_can():
    assert sorted(map(sorted, pack([90, 6, 5, 5], 100))) == [[0, 2, 3], [1]]
    assert sorted(map(sorted, pack([50, 30, 29, 20, 40], 100))) == [[0, 1, 3], [2, 4]]
    assert sorted(map(len, pack([50, 50, 25, 25, 25, 25], 100))) == [2, 4]


@pytest.mark.parametrize("seed", range(25))
def test_every_document_is_in_one_row_whole(seed):
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(1, 200))
    lengths = rng.integers(1, capacity + 1, int(rng.integers(0, 300))).tolist()
    rows = pack(lengths, capacity, seed=seed)
    check(rows, lengths, capacity)
    # Best fit: no two rows could have been one, but for a last half-full one.
    loads = sorted(sum(lengths[i] for i in row) for row in rows)
    assert len(loads) < 2 or loads[0] + loads[1] > capacity


@pytest.mark.parametrize("row_length", [1024, 8192])
def test_rows_are_as_full_as_the_research_packer_makes_them(row_length):
    """Its recorded lengths, and its efficiency in each batch."""
    research = np.load(FIXTURES / "packing" / f"research_{row_length}.npz")
    lengths = research["lengths"].astype(int)
    rows = pack(lengths, row_length)
    check(rows, lengths, row_length)
    efficiency = lengths.sum() / (len(rows) * row_length)
    assert efficiency >= research["efficiency"].mean()
    # All rows but the one with the leftovers.
    loads = np.sort([lengths[row].sum() for row in rows])[1:]
    assert loads.mean() / row_length >= research["efficiency"].max()


def test_natural_lengths_leave_hardly_a_gap():
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 1.2, 20_000), 8, 1024).astype(int)
    rows = pack(lengths, 1024)
    assert lengths.sum() / (len(rows) * 1024) > 0.999


def test_the_same_seed_gives_the_same_rows_and_another_seed_another_order():
    lengths = np.random.default_rng(0).integers(1, 100, 500).tolist()
    assert pack(lengths, 128, seed=3) == pack(lengths, 128, seed=3)
    one, other = pack(lengths, 128, seed=3), pack(lengths, 128, seed=4)
    assert one != other and sorted(one) == sorted(other)


def test_long_documents_do_not_come_first():
    """The packer sorts by length; training must not see that."""
    lengths = np.random.default_rng(0).integers(1, 1025, 4000)
    longest = [lengths[row].max() for row in pack(lengths, 1024)]
    half = len(longest) // 2
    assert abs(np.mean(longest[:half]) - np.mean(longest[half:])) < 30


def test_edges():
    assert pack([], 8) == []
    assert pack([8], 8) == [[0]]
    assert sorted(pack([1] * 8, 8)[0]) == list(range(8))
    assert len(pack([8, 8, 8], 8)) == 3


@pytest.mark.parametrize(("lengths", "index"), [([3, 9, 2], 1), ([0], 0), ([4, 4, -1], 2)])
def test_a_length_that_fits_no_row_is_refused_by_index(lengths, index):
    with pytest.raises(UserError, match=f"document {index} has {lengths[index]} tokens"):
        pack(lengths, 8)


@pytest.mark.parametrize("seed", range(10))
def test_rows_hold_the_documents_in_order(seed):
    rng = np.random.default_rng(seed)
    documents = [rng.integers(5, 99, n).tolist() for n in rng.integers(1, 30, 20)]
    assigned = pack([len(d) for d in documents], 32, seed=seed)
    rows = rows_from(documents, assigned, 32, pad_id=3)
    for field in rows:
        assert field.shape == (len(assigned), 32) and field.dtype == np.int32
    for b, indices in enumerate(assigned):
        at = 0
        for number, i in enumerate(indices, start=1):
            for offset, token in enumerate(documents[i]):
                got = tuple(int(field[b, at]) for field in rows)
                assert got == (token, number, offset)
                at += 1
        assert (rows.token_ids[b, at:] == 3).all()
        assert not rows.segment_ids[b, at:].any() and not rows.positions[b, at:].any()


def test_rows_too_short_for_their_documents_are_an_error():
    with pytest.raises(ValueError):
        rows_from([[1, 2, 3], [4, 5]], [[0, 1]], 4)


def test_an_empty_row_is_padding():
    rows = rows_from([[7, 8]], [[0], []], 3, pad_id=1)
    np.testing.assert_array_equal(rows.token_ids, [[7, 8, 1], [1, 1, 1]])
    np.testing.assert_array_equal(rows.segment_ids, [[1, 1, 0], [0, 0, 0]])
