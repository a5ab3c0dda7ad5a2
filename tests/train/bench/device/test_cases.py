"""Attention's cases: rows of all kinds, the oracle, and what a call has to compute."""

import jax
import numpy as np
import pytest

from modernbert_jax.attention import dense, key_ranges
from modernbert_jax.train.bench.device import cases
from modernbert_jax.train.bench.device.cases import Layer
from modernbert_jax.train.bench.device.parts import attention_times, attention_torch
from modernbert_jax.train.bench.device.scale import Scale

TINY = Scale(platform="cpu", device_kind="cpu")


@pytest.mark.parametrize("length", [128, 1024])
def test_layouts_are_packed_rows(length):
    layouts = dict(cases.layouts(length))
    assert len(layouts) == 7
    for ids in layouts.values():
        assert ids.shape == (1, length)
        starts = np.diff(ids[0], prepend=0) != 0
        assert (ids[0][starts] <= np.arange(1, starts.sum() + 1)).all()  # numbered in order
    assert layouts["one document"].min() == 1
    assert layouts["single tokens"].max() == length
    assert not layouts["padding only"].any()
    assert (layouts["padded tail"][0, -length // 8 :] == 0).all()


@pytest.mark.parametrize("kind", cases.WINDOWS)
def test_the_oracle_is_dense_attention(kind):
    layer = Layer(kind, 128, "float32")
    q, k, v, cotangent = cases.operands(layer, 1, TINY)
    ranges = key_ranges(dict(cases.layouts(128))["around blocks"], layer.window)
    function = cases.both(lambda q, k, v, r: dense.attention(q, k, v, r, window=None))
    expected = jax.jit(function)(q, k, v, ranges, cotangent)
    actual = jax.jit(cases.oracle)(q, k, v, ranges, cotangent)
    for x, exact in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, exact, atol=2e-6)


@pytest.mark.parametrize("kind", cases.WINDOWS)
@pytest.mark.parametrize("documents", attention_times.DOCUMENTS)
def test_both_sides_count_the_same_pairs(kind, documents):
    layer = Layer(kind, 128, "float32")
    ids = attention_times.segments(layer, documents, TINY)
    ranges = key_ranges(ids, layer.window)
    seen = np.asarray(ranges.last) - np.asarray(ranges.first) + 1
    assert ids.min() > 0  # PyTorch's side takes no padding
    assert attention_torch.pairs(layer, ids) == seen.sum()
    flops = attention_times.forward_flops(ranges, TINY)
    assert flops == 4 * seen.sum() * TINY.heads * TINY.head_dim


def test_rows_of_documents_are_full():
    for length, rows in ((64, 2), (1024, 64), (8192, 8)):
        documents = cases.lognormal(length, rows)
        assert [sum(row) for row in documents] == [length] * rows
        assert min(map(min, documents)) > 0


def test_positions_count_from_zero_in_every_document():
    ids = np.array([[1, 1, 2, 2, 2, 0, 0], [1, 2, 3, 3, 0, 0, 0]], np.int32)
    positions = cases.positions(ids)
    assert (positions * (ids > 0)).tolist() == [[0, 1, 0, 1, 2, 0, 0], [0, 0, 0, 1, 0, 0, 0]]


def test_every_implementation_is_checked_or_refused_with_a_reason():
    refusals = dict(cases.implementations(Layer("full", 128, "float32"), TINY))
    assert refusals["two_block"] == "it computes sliding windows only"
    assert {name for name, reason in refusals.items() if reason is None} == {
        "xla_range",
        "splash",
        "pallas_tpu",
        "pallas_triton",
    }
