"""Microbatches of examples: every sequence once, with its number in the batch."""

import numpy as np

from modernbert_jax.inference.shapes import Shape
from modernbert_jax.train.examples import packing

SHAPE = Shape(rows=3, length=8, documents=4)
SEQUENCES = [[[1, 2, 3], [4]], [[5, 6]], [[7], [8, 8, 8, 8], [9]]]
ROWS = [[(0, 0), (2, 1), (0, 1)], [(1, 0), (2, 0), (2, 2)]]


def test_every_sequence_is_laid_out_with_its_number():
    rows, numbers = packing.laid_out(SEQUENCES, ROWS, SHAPE, stride=10, empty=99)
    assert numbers.tolist() == [[0, 12, 10, 99], [1, 2, 22, 99], [99] * 4]
    assert rows.token_ids[0].tolist() == [1, 2, 3, 8, 8, 8, 8, 4]
    assert rows.segment_ids[1].tolist() == [1, 1, 2, 3, 0, 0, 0, 0]
    assert not rows.segment_ids[2].any()
    _, numbers = packing.laid_out(SEQUENCES, ROWS, SHAPE)
    assert numbers[0].tolist() == [0, 5, 3, 0]


def test_dropout_follows_the_document():
    """A token has the same id wherever its document is packed, and no other token has it."""
    other = [[(2, 1), (0, 0)], [(0, 1), (2, 2), (1, 0)], [(2, 0)]]
    ids = []
    for rows_ in (ROWS, other):
        rows, numbers = packing.laid_out(SEQUENCES, rows_, SHAPE, stride=10, empty=99)
        of_tokens = np.asarray(packing.dropout_ids(numbers, rows))[rows.segment_ids > 0]
        tokens = zip(of_tokens.tolist(), rows.token_ids[rows.segment_ids > 0], strict=True)
        ids.append(sorted(tokens))
    assert ids[0] == ids[1] and len({number for number, _ in ids[0]}) == len(ids[0])


def test_a_stack_is_filled_up():
    parts = [packing.laid_out(SEQUENCES, [row], SHAPE)[0] for row in ROWS]
    empty = packing.laid_out([], [], SHAPE)[0]
    stack = packing.stacked(parts, empty, 4)
    assert stack.token_ids.shape == (4, 3, 8)
    assert not stack.segment_ids[2:].any() and stack.segment_ids[1].any()
