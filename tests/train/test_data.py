"""The order of batches: a function of the seed and of how much was read, and of nothing else."""

import corpus
import grain
import numpy as np
import pytest
from grain import experimental

from modernbert_jax.train.data import Prepared


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    return Prepared(corpus.prepared(tmp_path_factory.mktemp("data")))


def take(batches, count):
    return [next(batches).token_ids for _ in range(count)]


def test_resumes_anywhere(data):
    whole = take(data.batches("train", 64, 3, seed=5), 12)
    for at in (1, 4, 11):
        batches = data.batches("train", 64, 3, seed=5, start=3 * at)
        assert np.array_equal(take(batches, 12 - at), whole[at:])
        assert batches.position == 36


def test_batches_of_any_size_go_on_where_others_ended(data):
    """A run whose batches grow reads the rows that one with a single size reads."""
    single = np.concatenate(take(data.batches("train", 64, 1, seed=5), 14))
    batches, grown = data.batches("train", 64, 2, seed=5), []
    for size in (2, 4, 1, 5):
        batches = data.batches("train", 64, size, seed=5, start=batches.position)
        grown += take(batches, 1)
    assert batches.position == 12 and np.array_equal(np.concatenate(grown), single[:12])


def test_an_epoch_has_every_row_once_and_the_next_another_order(data):
    rows = data.rows("train", 64)
    count = len(rows) - len(rows) % 1
    batches = data.batches("train", 64, 1, seed=5)
    first, second = ([tuple(x[0]) for x in take(batches, count)] for _ in range(2))
    assert (
        sorted(first) == sorted(second) == sorted(tuple(rows[i]["token_ids"]) for i in range(count))
    )
    assert first != second
    assert first != [tuple(x[0]) for x in take(data.batches("train", 64, 1, seed=6), count)]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_batches_do_not_depend_on_the_number_of_hosts(data, hosts):
    rows = data.rows("train", 64).seed(5).shuffle().repeat()
    shards = [
        iter(experimental.ElasticIterator(rows, 4, grain.sharding.ShardOptions(i, hosts)))
        for i in range(hosts)
    ]
    whole = data.batches("train", 64, 4, seed=5)
    for _ in range(5):
        parts = np.concatenate([next(s)["token_ids"] for s in shards])
        assert sorted(map(tuple, parts)) == sorted(map(tuple, next(whole).token_ids))


def test_validation_rows_are_filled_up(data):
    batches = data.validation(64, 4, most=6)
    assert [b.token_ids.shape for b in batches] == [(4, 64), (4, 64)]
    assert batches[1].segment_ids[:2].any(axis=1).all() and not batches[1].segment_ids[2:].any()
    assert data.validation(64, 4, most=3)[0].segment_ids[:3].any(axis=1).all()


def test_compiling_shape_is_that_of_a_batch(data):
    batches = data.batches("train", 128, 2, seed=0)
    for shape, array in zip(batches.shape(), next(batches), strict=True):
        assert shape.shape == array.shape and shape.dtype == array.dtype
