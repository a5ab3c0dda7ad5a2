"""Batches depend on the seed and the rows read before, and on nothing else."""

import shutil
import threading
from collections import Counter

import hypothesis
import jax
import numpy as np
import pytest
import rows as support
from hypothesis import strategies as st

from modernbert_jax import UserError
from modernbert_jax.train.rows import batches as reading
from modernbert_jax.train.rows import row_files
from modernbert_jax.train.rows.batches import ON_DEVICE, READ_AHEAD, Host
from modernbert_jax.train.rows.prepared import Prepared

COMPONENTS = {"code": 300, "prose": 150, "science": 60}
WEIGHTS = {"code": 1.0, "prose": 2.0, "science": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    folder = tmp_path_factory.mktemp("data") / "mixed"
    return Prepared(
        support.prepared(folder, COMPONENTS, weights=WEIGHTS, lengths=(64, 128), validation=9)
    )


def take(batches, count):
    """Token ids of the next batches."""
    result = [np.asarray(next(batches).rows.token_ids) for _ in range(count)]
    batches.close()
    return result


def hosts(data, number, count, start=0, size=12, seed=5, threads=2):
    """Global batches, concatenated from the parts of several processes."""
    each = [
        take(data.batches(64, size, seed, start, host=Host(i, number), threads=threads), count)
        for i in range(number)
    ]
    return [np.concatenate(parts) for parts in zip(*each, strict=True)]


@pytest.fixture(scope="module")
def whole(data):
    """Batches of one process that was never stopped."""
    return hosts(data, 1, 60)


@pytest.mark.parametrize("number", [2, 3, 4, 6])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_do_not_depend_on_hosts_or_threads(data, whole, number, threads):
    assert np.array_equal(hosts(data, number, 8, threads=threads), whole[:8])


@hypothesis.given(
    plan=st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(1, 9)), min_size=1, max_size=5
    )
)
@hypothesis.example(plan=[(1, 4), (2, 5), (4, 3), (3, 6)])
@hypothesis.settings(max_examples=12, deadline=None)
def test_the_number_of_hosts_may_change_at_any_batch(data, whole, plan):
    actual = []
    for number, count in plan:
        actual += hosts(data, number, count, start=12 * len(actual))
    assert np.array_equal(actual, whole[: len(actual)])


def test_resumes_anywhere(data, whole):
    for at in (1, 4, 11):
        batches = data.batches(64, 12, seed=5, start=12 * at)
        for i in range(at, 14):
            assert batches.position == 12 * i
            assert np.array_equal(next(batches).rows.token_ids, whole[i])
        batches.close()


def test_the_size_of_a_batch_may_change_between_runs(data, whole):
    rows = np.concatenate(take(data.batches(64, 5, seed=5, start=7), 20))
    assert np.array_equal(rows, np.concatenate(whole)[7 : 7 + 100])


def test_another_seed_is_another_order(data, whole):
    assert not np.array_equal(hosts(data, 1, 3, seed=6), whole[:3])


def test_batches_of_any_size_resume_where_others_ended(data):
    """A run whose batches grow reads the rows that one with a single size reads."""
    single = np.concatenate(take(data.batches(64, 1, seed=5), 14))
    batches, grown = data.batches(64, 2, seed=5), []
    for size in (2, 4, 1, 5):
        batches = data.batches(64, size, seed=5, start=batches.position)
        grown += take(batches, 1)
    assert batches.position == 12 and np.array_equal(np.concatenate(grown), single[:12])


def test_an_epoch_has_every_row_once_and_the_next_another_order(data):
    order = data.order(64, {"prose": 1.0})
    wanted = [tuple(r["token_ids"]) for r in iterate(data, "prose")]
    batches = data.batches(64, 1, seed=5, order=order)
    first, second = (
        [tuple(np.asarray(next(batches).rows.token_ids)[0].tolist()) for _ in wanted]
        for _ in range(2)
    )
    batches.close()
    assert Counter(first) == Counter(second) == Counter(wanted)
    assert first != second


def iterate(data, component, length=64, split="train"):
    rows = data.rows(split, length, component)
    return [rows[i] for i in range(len(rows))]


def test_a_batch_knows_what_it_holds(data):
    by_row = {tuple(row["token_ids"]): name for name in COMPONENTS for row in iterate(data, name)}
    batches = data.batches(64, 12, seed=5, host=Host(1, 2))
    for _ in range(5):
        batch = next(batches)
        names = [by_row[tuple(row)] for row in np.asarray(batch.rows.token_ids)]
        assert [batches.order.names[c] for c in batch.components] == names
        segments = np.asarray(batch.rows.segment_ids)
        np.testing.assert_array_equal(batch.tokens, (segments > 0).sum(axis=1))
    batches.close()


def test_weights_are_shares_of_the_tokens(data):
    batches = data.batches(64, 12, seed=5)
    tokens = np.zeros(3)
    for _ in range(60):
        batch = next(batches)
        tokens += np.bincount(batch.components, batch.tokens, minlength=3)
    batches.close()
    np.testing.assert_allclose(tokens / tokens.sum(), [0.25, 0.5, 0.25], rtol=0.02)
    contents = batches.order.contents(tokens, batches.position)
    assert contents["share/prose"] == tokens[1] / tokens.sum()
    assert contents["epochs/prose"] == batches.order.counts(720)[1] / len(iterate(data, "prose"))


def test_a_mixture_of_some_components_and_their_epochs(data):
    order = data.order(64, {"code": 3.0, "science": 1.0, "prose": 0.0}, {"science": 0.5})
    assert order.names == ("code", "science") and order.weights == {"code": 3.0, "science": 1.0}
    rows = data.manifest.components["science"].lengths["64"]["train"].rows
    assert order.counts(10**6)[1] == round(rows / 2)
    with pytest.raises(UserError, match=r"did you mean 'prose'"):
        data.order(64, {"prosa": 1.0})
    with pytest.raises(UserError, match="has no component 'x'"):
        data.order(64, epochs={"x": 1.0})


def test_batches_are_read_and_on_the_device_before_they_are_asked_for(data, monkeypatch):
    """The step does not wait for reading that is as fast as itself."""
    put, enough = [], threading.Event()

    def counting(rows, **options):
        put.append(rows)
        if len(put) > ON_DEVICE:
            enough.set()
        return placed(rows, **options)

    placed = reading.place
    monkeypatch.setattr(reading, "place", counting)
    batches = data.batches(64, 4, seed=5)
    batch = next(batches)
    assert all(isinstance(field, jax.Array) for field in batch.rows)
    assert enough.wait(60), "nothing was read while the first batch was in use"
    batches.close()
    assert len(put) <= 2 + ON_DEVICE + READ_AHEAD, "reading ahead has an end"


def test_a_batch_that_hosts_cannot_share(data):
    with pytest.raises(UserError, match="5 rows cannot be shared by 2 processes"):
        data.batches(64, 5, seed=0, host=Host(0, 2))


def test_validation_rows_are_filled_up(data):
    count = len(data.rows("validation", 64, "code"))
    batches = data.validation(64, 4, most=2, component="code")
    assert [b.token_ids.shape for b in batches] == [(4, 64)]
    assert batches[0].segment_ids[:2].any(axis=1).all() and not batches[0].segment_ids[2:].any()
    everything = data.validation(64, 4, most=99, component="code")
    assert sum(b.segment_ids.any(axis=1).sum() for b in everything) == count


def test_compiling_shape_is_that_of_a_batch(data):
    batches = data.batches(128, 2, seed=0)
    for shape, array in zip(batches.shape, next(batches).rows, strict=True):
        assert shape.shape == array.shape and shape.dtype == array.dtype
    batches.close()


def test_unprepared_length_and_folder(data, tmp_path):
    with pytest.raises(UserError, match=r"no rows of length 99"):
        data.rows("train", 99, "code")
    with pytest.raises(UserError, match=r"not a prepared corpus"):
        Prepared(tmp_path)
    with pytest.raises(UserError, match=r"gs://bucket/data: .*mount the bucket"):
        Prepared("gs://bucket/data")


@pytest.fixture
def copy(data, tmp_path):
    """A copy of the folder, to be damaged, and one of its files."""
    folder = tmp_path / "copy"
    shutil.copytree(data.folder, folder)
    return folder, folder / data.manifest.shards("prose", 64, "train")[1].file


def test_a_damaged_file_is_named(copy):
    folder, file = copy
    Prepared(folder).check([64])
    good = file.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(good), 40):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        file.write_bytes(bad)
        with pytest.raises(UserError, match=f"{file}: damaged.*checksum"):
            Prepared(folder).check([64])
    Prepared(folder).check([128])
    file.write_bytes(good[:-1])
    with pytest.raises(UserError, match=f"{file}: damaged.*bytes"):
        row_files.check(folder, Prepared(folder).manifest.shards("prose", 64, "train"), hashed=0)
    file.unlink()
    with pytest.raises(UserError, match=f"{file}: cannot be read"):
        Prepared(folder).check([64])


def test_damage_is_also_found_when_a_row_is_read(copy):
    """Even without our checksums, a row is read as written, or its file is named."""
    folder, file = copy
    good, result = file.read_bytes(), 0
    want = iterate(Prepared(folder), "prose")
    written = np.flatnonzero(np.frombuffer(good, np.uint8))  # much of a small file is padding
    for place in np.random.default_rng(1).choice(written, 60):
        bad = bytearray(good)
        bad[place] ^= 0xFF
        file.write_bytes(bad)
        try:
            actual = iterate(Prepared(folder), "prose")
        except UserError as error:
            assert f"{file}: damaged or unreadable" in str(error)
            result += 1
        else:
            assert all(
                np.array_equal(a[k], b[k]) for a, b in zip(want, actual, strict=True) for k in a
            )
    assert result > 30


def test_damage_stops_a_run_of_batches(copy):
    folder, file = copy
    content = bytearray(file.read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    file.write_bytes(content)
    batches = Prepared(folder).batches(64, 12, seed=5)
    with pytest.raises(UserError, match=f"{file}: damaged or unreadable"):
        for _ in range(100):
            next(batches)
