"""Shapes of the server's batches: every batch fits, and nobody waits for ever."""

import random

import pytest

from modernbert_jax.serving.shapes import close, ladder


def sizes(shapes) -> list[tuple[int, int]]:
    return [(shape.rows, shape.length) for shape in shapes]


def test_shapes_are_a_handful():
    assert sizes(ladder(24, 128, 1, 64)) == [(1, 128)]
    assert sizes(ladder(512, 2048, 1, 64)) == [(1, 128), (1, 256), (1, 512), (4, 512)]
    long = sizes(ladder(8192, 2048, 2, 64))
    assert long == [(2, 128), (2, 256), (2, 512), (8, 512), (2, 2048), (2, 8192)]
    assert sizes(ladder(5000, 2048, 1, 64))[-1] == (1, 8192)
    assert len(ladder(8192, 16384, 1, 64)) <= 10


@pytest.mark.parametrize("seed", range(40))
def test_batches_fit_take_the_first_and_end(seed):
    rng = random.Random(seed)
    longest = rng.choice((20, 500, 3000))
    documents = rng.choice((2, 64))
    shapes = ladder(longest, rng.choice((128, 1024, 4096)), rng.choice((1, 2)), documents)
    waiting = [rng.randint(1, longest) for _ in range(rng.choice((1, 5, 200)))]
    for _ in range(len(waiting)):
        if not waiting:
            break
        shape, rows = close(waiting, shapes)
        taken = [i for row in rows for i in row]
        assert shape in shapes and len(rows) <= shape.rows
        assert 0 in taken and len({*taken}) == len(taken)
        for row in rows:
            assert len(row) <= documents and sum(waiting[i] for i in row) <= shape.length
        waiting = [n for i, n in enumerate(waiting) if i not in taken]
    assert not waiting


def test_a_batch_has_the_smallest_shape_that_holds_all():
    shapes = ladder(2048, 2048, 1, 64)
    assert close([30], shapes)[0] == shapes[0]
    assert sizes([close([130, 100], shapes)[0]]) == [(1, 256)]
    assert sizes([close([400, 300, 100], shapes)[0]]) == [(4, 512)]
    assert sizes([close([40, 2000], shapes)[0]]) == [(1, 2048)]


def test_full_batches_are_full():
    rng = random.Random(0)
    shapes = ladder(512, 4096, 1, 64)
    lengths = [rng.randint(10, 300) for _ in range(2000)]
    shape, rows = close(lengths, shapes)
    assert shape.tokens == 4096
    assert sum(lengths[i] for row in rows for i in row) > 0.99 * shape.tokens
