"""MaxSim of packed rows against loops over texts, and its implementations against the oracle."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax import late_interaction
from modernbert_jax.errors import UserError
from modernbert_jax.scoring import Texts, interaction, maxsim, paired_maxsim, reading_order
from modernbert_jax.scoring.interaction import (
    choice,
    pallas_tpu,
    pallas_triton,
    tpu_kernels,
    xla,
    xla_visits,
)
from modernbert_jax.sharding import MeshShape, rows_sharding

QUERIES = (7, 24)
DOCUMENTS = (3, 40)
PLACES = 4
"""Texts of a row, at most, in tests with packings by hypothesis."""

WIDTH = 16


@functools.cache
def tensors(dtype="float32"):
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.standard_normal((*shape, WIDTH)), dtype) for shape in (QUERIES, DOCUMENTS)
    )


def side(rows):
    """Segment ids of queries: of the first rows and of the last one, which is in another tile."""
    return tiny.segments([*rows, *[[]] * (QUERIES[0] - len(rows) - 1), [5]], QUERIES[1])


def texts_of(vectors, ids):
    """The texts of packed rows as arrays of their own, in reading order."""
    return [
        np.asarray(row, np.float32)[own == n]
        for row, own in zip(vectors, ids, strict=True)
        for n in range(1, own.max(initial=0) + 1)
    ]


@functools.partial(jax.jit, static_argnames=("implementation", "mean", "blocks"))
def run(q, d, ids, cotangent, query_of, implementation, mean, blocks=()):
    """Scores in place order, with gradients; of pairs where there are queries of documents."""
    sides = [
        Texts(jnp.arange(x.shape[0] * PLACES, dtype=jnp.int32).reshape(-1, PLACES), len(x) * PLACES)
        for x in ids
    ]
    names = dict(zip(("queries", "documents"), sides, strict=True))

    def scores(q, d):
        arguments = (q, ids[0], d, ids[1])
        if query_of is None:
            return maxsim(*arguments, implementation, mean=mean, **names)
        return paired_maxsim(*arguments, query_of, implementation, mean=mean, **names)

    value, pull = jax.vjp(scores, q, d)
    return value, *pull(cotangent)


def compare(ids, implementation, *, dtype="float32", paired=False, mean=False, atol=2e-5):
    rng = np.random.default_rng(1)
    shape = (QUERIES[0] * PLACES, DOCUMENTS[0] * PLACES)
    query_of = None
    if paired:
        query_of = jnp.asarray(rng.integers(-1, shape[0], shape[1]), jnp.int32)
        shape = shape[1:]
    cotangent = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    got, want = (
        run(*tensors(dtype), ids, cotangent, query_of, name, mean)
        for name in (implementation, "dense")
    )
    for name, a, b in zip(("scores", "dq", "dd"), got, want, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-2 if dtype == "bfloat16" else 1e-5)
        if name != "scores":
            uncounted = np.asarray(ids[name == "dd"]) == 0
            assert not a[uncounted].any(), name


@st.composite
def packed(draw, shape):
    """Rows of at most four texts, many of one token, with tokens that do not count."""
    ids = np.zeros(shape, np.int32)
    for row in ids:
        at = 0
        for text in range(1, PLACES + 1):
            left = shape[1] - at
            n = draw(st.sampled_from([0, 1, 1, 2, 7, 8, 9, 16, 17, left]))
            row[at : at + n] = text
            at += min(n, left)
        row[draw(st.lists(st.integers(0, shape[1] - 1), max_size=6))] = 0
    return ids


both_sides = st.tuples(packed(QUERIES), packed(DOCUMENTS))
examples = settings(max_examples=10, deadline=None, derandomize=True)
KERNELS = [name for name in interaction.IMPLEMENTATIONS if name != "dense"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """More than one block of everything, and visits that do not divide a row."""
    monkeypatch.setattr(xla, "BLOCK", 20)
    monkeypatch.setattr(xla_visits, "VISIT", 12)
    monkeypatch.setattr(pallas_tpu, "BLOCK", 40)
    monkeypatch.setattr(pallas_tpu, "TILE", 128)
    monkeypatch.setattr(tpu_kernels, "CHUNK", 128)
    monkeypatch.setattr(pallas_triton, "WINNERS", 1)


@pytest.mark.parametrize("implementation", KERNELS)
@examples
@given(ids=both_sides)
def test_any_packing(implementation, ids):
    compare(ids, implementation)


@pytest.mark.parametrize("implementation", KERNELS)
@examples
@given(ids=both_sides)
def test_pairs_of_any_packing(implementation, ids):
    compare(ids, implementation, paired=True)


WORST = (
    (side([[1] * PLACES, []]), tiny.segments([[40], [], [1, 1, 37, 1]], 40)),
    (side([[24], [23, 1]]), tiny.segments([[], [], []], 40)),
)


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("ids", WORST)
def test_the_worst_packings(implementation, ids):
    compare(ids, implementation)


@pytest.mark.parametrize("implementation", KERNELS)
def test_half_precision(implementation):
    ids = (side([[11, 13], [5, 6, 7]]), tiny.segments([[19, 21], [8, 8], [40]], 40))
    compare(ids, implementation, dtype="bfloat16", atol=2e-2)


@pytest.mark.parametrize("implementation", interaction.IMPLEMENTATIONS)
def test_the_first_of_equal_tokens_has_the_gradient(implementation):
    ids = (side([[3], [2]]), tiny.segments([[40], [9, 9], [12]], 40))
    q, d = tensors()
    d = jnp.broadcast_to(d[:, :1], d.shape)
    cotangent = jnp.ones((QUERIES[0] * PLACES, DOCUMENTS[0] * PLACES))
    dd = np.asarray(run(q, d, ids, cotangent, None, implementation, False)[2])
    used = np.argwhere(dd.any(-1)).tolist()
    assert used == [[0, 0], [1, 0], [1, 9], [2, 0]]


def test_scores_are_those_of_the_definition():
    ids = (side([[3, 1], [20]]), tiny.segments([[30, 9], [1], [7, 7]], 40))
    ids[1][0, 5:9] = 0
    q, d = tensors()
    want = late_interaction.maxsim(texts_of(q, ids[0]), texts_of(d, ids[1]))
    got = maxsim(q, ids[0], d, ids[1])
    assert got.shape == (4, 5)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    lengths = np.array([3, 1, 20, 5])[:, None]
    np.testing.assert_allclose(maxsim(q, ids[0], d, ids[1], mean=True), want / lengths, rtol=1e-5)
    query_of = np.array([2, 0, -1, 1, 2])
    pairs = paired_maxsim(q, ids[0], d, ids[1], query_of)
    np.testing.assert_allclose(pairs, want[query_of, range(5)] * (query_of >= 0), rtol=1e-5)


def test_numbers_say_where_texts_are_in_the_result():
    ids = (side([[3, 1], [20]]), tiny.segments([[30, 9], [1], [7, 7]], 40))
    q, d = tensors()
    plain = np.asarray(maxsim(q, ids[0], d, ids[1]))
    queries = np.full((QUERIES[0], 2), 4)  # number 3 is no text, and 4 is none of them
    queries[:2] = [[2, 0], [1, 4]]
    queries = Texts(queries, 4)
    documents = Texts(np.array([[0, 9], [3, 9], [1, -1]]), 4)
    got = maxsim(q, ids[0], d, ids[1], queries=queries, documents=documents)
    want = np.zeros((4, 4))
    want[np.ix_([2, 0, 1], [0, 3, 1])] = plain[:3, [0, 2, 3]]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_query_tokens_beyond_vector_memory_are_compared_piece_by_piece(monkeypatch):
    monkeypatch.setattr(pallas_tpu, "PIECE", 128 * 128)
    ids = (side([[11, 13], [5, 6, 7]]), tiny.segments([[19, 21], [8, 8], [40]], 40))
    sides = [reading_order(x) for x in ids]
    names = dict(zip(("queries", "documents"), sides, strict=True))
    got, want = (
        jax.jit(lambda q, d, name=name: maxsim(q, ids[0], d, ids[1], name, **names))(*tensors())
        for name in ("pallas_tpu", "dense")
    )
    np.testing.assert_allclose(got, want, atol=2e-5)


def refusal(implementation, changes):
    facts = {
        **{"platform": "cpu", "device_kind": "cpu", "dtype": "bfloat16", "width": 128},
        **{"query_tokens": 32768, "queries": 1024, "rows": 94, "length": 2048, "texts": 16},
    }
    return choice.refusal(implementation, choice.Call(**facts | changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"platform": "tpu", "device_kind": "TPU v5 lite"}, None),
        ({"platform": "gpu"}, "for TPU"),
        ({"device_kind": "TPU v4"}, "too little vector memory"),
        ({"dtype": "float16"}, "not float16"),
        ({"width": 100}, "100 dimensions"),
        ({"paired": True}, None),
        ({"length": 65536}, "do not fit"),
    ],
)
def test_what_the_tpu_kernels_refuse(changes, reason):
    refused = refusal("pallas_tpu", changes)
    assert refused is None if reason is None else reason in refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"platform": "gpu", "device_kind": "NVIDIA L4", "capability": (8, 9)}, None),
        ({"platform": "tpu", "device_kind": "TPU v5 lite"}, "NVIDIA GPUs, not TPU v5 lite"),
        ({"platform": "gpu", "device_kind": "AMD Instinct MI300X"}, "not AMD"),
        ({"capability": (7, 5)}, "compute capability 8.0"),
        ({"dtype": "float64"}, "not in float64"),
        ({"width": 512}, "512 dimensions"),
        ({"texts": 4096, "paired": True}, None),
        ({"texts": 4096}, "winning tokens"),
    ],
)
def test_what_the_gpu_kernels_refuse(changes, reason):
    refused = refusal("pallas_triton", changes)
    assert refused is None if reason is None else reason in refused


def test_reading_order_counts_texts_that_are_there():
    texts = reading_order(np.array([[1, 1, 2, 0], [0, 0, 0, 0], [2, 3, 3, 0]]))
    assert texts.total == 5
    np.testing.assert_array_equal(texts.numbers, [[0, 1, 5], [5, 5, 5], [2, 3, 4]])


def on_a_mesh():
    """Scores and gradients on four devices; test_exact_search.py runs this in a process."""
    ids = (side([[3, 1], [20]]), tiny.segments([[30, 9], [1], [], [7, 7]], 40))
    q, d = tensors()
    d = jnp.concatenate([d, d[:1]])
    texts = [reading_order(x) for x in ids]

    def both(q, d):
        out, pull = jax.vjp(lambda q, d: maxsim(q, ids[0], d, ids[1], "xla", **names), q, d)
        pairs = paired_maxsim(q, ids[0], d, ids[1], np.array([2, 0, -1, 1, 2]), **names)
        return pairs, out, *pull(jnp.sin(out))

    names = dict(zip(("queries", "documents"), texts, strict=True))
    want = jax.jit(both)(q, d)
    mesh = MeshShape(data=2, fsdp=2).make()
    with jax.set_mesh(mesh):
        got = jax.jit(both)(q, jax.device_put(d, rows_sharding(mesh)))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
    with jax.set_mesh(mesh), pytest.raises(UserError, match="3 rows of documents"):
        maxsim(q, ids[0], d[:3], ids[1][:3], queries=texts[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_temporary_memory_grows_with_tokens(dtype):
    """By 64 MB for a batch of 1,024 texts of 32 and 180 tokens, where float32 copies take 115.

    Four times the texts on both sides have 16 times the pairs, whose products take 101 MB here.
    """

    def temporary(rows):
        q = jax.ShapeDtypeStruct((rows, 32, 128), dtype)
        d = jax.ShapeDtypeStruct((rows, 192, 128), dtype)
        ids = [jax.ShapeDtypeStruct(x.shape[:2], jnp.int32) for x in (q, d)]
        texts = Texts(np.arange(rows)[:, None], rows)

        def loss(q, d, ids):
            return maxsim(q, ids[0], d, ids[1], "xla", queries=texts, documents=texts).sum()

        program = jax.jit(jax.grad(loss, (0, 1))).lower(q, d, ids).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(64) - temporary(16) < 64e6 / (1024 * 212) * (64 - 16) * (32 + 192)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "xlaa"}, "did you mean 'xla'"),
        ({"q": jnp.zeros((*QUERIES, 8))}, "queries have 8 dimensions"),
        ({"d": jnp.zeros((3, 40, WIDTH), jnp.bfloat16)}, "bfloat16"),
        ({"d_segments": np.zeros((3, 39), np.int32)}, r"segment ids \(3, 39\)"),
        ({"queries": Texts(np.zeros((3, 1)), 1)}, "there are 7 rows"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    q, d = tensors()
    ids = {"q_segments": np.ones(QUERIES, np.int32), "d_segments": np.ones(DOCUMENTS, np.int32)}
    with pytest.raises(UserError, match=message):
        maxsim(**{"q": q, "d": d} | ids | change)


def test_bad_pairs_are_refused():
    q, d = tensors()
    with pytest.raises(UserError, match="there are 3 documents"):
        paired_maxsim(q, np.ones(QUERIES, np.int32), d, np.ones(DOCUMENTS, np.int32), np.zeros(4))


def test_a_traced_program_needs_the_number_of_texts():
    q, d = tensors()
    with pytest.raises(UserError, match=r"Texts\(numbers, total\)"):
        jax.jit(lambda ids: maxsim(q, ids, d, np.ones(DOCUMENTS)))(np.ones(QUERIES, np.int32))


def test_the_choice_is_logged(caplog):
    choice.choose.cache_clear()
    with caplog.at_level(logging.INFO):
        maxsim(tensors()[0], np.ones(QUERIES), tensors()[1], np.ones(DOCUMENTS))
    assert "xla (default on cpu)" in caplog.text
