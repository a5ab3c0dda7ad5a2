"""Representations of one array, or of arrays of several lengths: on disk, in part, and together."""

import numpy as np
import pytest

from modernbert_jax.train.retrieval.blocks import arrays_of, block_of, joined, take
from modernbert_jax.train.retrieval.parts import Parts
from modernbert_jax.train.retrieval.stored_blocks import StoredBlocks

RNG = np.random.default_rng(0)
LENGTHS = (3, 0, 1, 7, 2, 5, 1)
VECTORS = RNG.normal(size=(7, 4)).astype(np.float32)
TOKENS = [RNG.normal(size=(n, 4)).astype(np.float16) for n in LENGTHS]
WEIGHTS = [(np.arange(n, dtype=np.int32), RNG.random(n, np.float32)) for n in LENGTHS]


def same(a, b):
    assert type(a) is type(b) and len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for one, other in zip(x, y, strict=True) if isinstance(x, tuple) else [(x, y)]:
            assert one.dtype == other.dtype and one.tolist() == other.tolist()


@pytest.mark.parametrize("block", [VECTORS, TOKENS, WEIGHTS], ids=["vectors", "tokens", "weights"])
def test_blocks_are_stored_and_taken_in_any_order(block, tmp_path):
    same(block_of(arrays_of(block)), block)
    same(joined([block[:2], block[2:]]), block)
    computed = []

    def compute(number):
        computed.append(number)
        return block[3 * number : 3 * number + 3]

    stored = StoredBlocks(Parts(tmp_path, "parts", {}), 7, 3, compute)
    assert stored.missing == [0, 1, 2]
    stored.store(1, block[3:6])
    numbers = np.array([5, 0, 4, 0, 6])
    same(stored.take(numbers), take(block, numbers))
    assert computed == [0, 2] and not stored.missing
    same(joined([*stored]), block)
    assert computed == [0, 2]


@pytest.mark.parametrize(("stored", "error", "size"), [("float16", 5e-4, 2), ("int8", 4e-3, 1)])
def test_numbers_are_kept_in_fewer_bits(stored, error, size, tmp_path):
    """Read or just computed, they are the same; indices stay whole."""
    block = [VECTORS[:3], np.zeros((0, 4), np.float32), 100 * VECTORS[3:], np.zeros((1, 4), "f4")]
    kept = StoredBlocks(Parts(tmp_path, "tokens", {}), 4, 4, lambda _: block, stored)
    first, again = kept.part(0), kept.part(0)
    same(first, again)
    for own, whole in zip(first, block, strict=True):
        assert own.dtype == np.float32 and own.shape == whole.shape
        largest = np.abs(whole).max(1, keepdims=True) if len(whole) else whole
        assert (np.abs(own - whole) <= error * largest).all()
    with np.load(kept.parts.path(0)) as file:
        assert file["0"].dtype.itemsize == size
    kept = StoredBlocks(Parts(tmp_path, "sparse", {}), 7, 7, lambda _: WEIGHTS, stored)
    for (indices, weights), (all_indices, whole) in zip(kept.part(0), WEIGHTS, strict=True):
        assert indices.tolist() == all_indices.tolist()
        np.testing.assert_allclose(weights, whole, rtol=1e-3)
