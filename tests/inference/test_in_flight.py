"""Batches overlap, and their results come in order."""

import jax.numpy as jnp
import numpy as np

from modernbert_jax.inference import in_flight


def test_several_batches_are_started_before_the_first_result():
    events = []

    def compute(n):
        events.append(("start", n))
        return jnp.full(2, n), {"twice": jnp.asarray(2 * n)}

    seen = []
    for (values, more), note in in_flight.results(compute, ((n, str(n)) for n in range(6)), 2):
        events.append(("result", int(note)))
        assert isinstance(values, np.ndarray) and values.tolist() == [int(note)] * 2
        assert int(more["twice"]) == 2 * int(note)
        seen.append(int(note))
    assert seen == list(range(6))
    assert events[:5] == [("start", 0), ("start", 1), ("start", 2), ("result", 0), ("start", 3)]


def test_documents_are_cut_out_of_rows():
    values = np.arange(2 * 6 * 3).reshape(2, 6, 3)
    lengths = {"a": 2, "b": 3, "c": 6}
    rows = [["a", "b"], ["c"]]
    tokens = dict(in_flight.unpacked(values, rows, lengths.__getitem__, "token"))
    assert {key: len(x) for key, x in tokens.items()} == lengths
    np.testing.assert_array_equal(tokens["b"], values[0, 2:5])
    documents = dict(in_flight.unpacked(values, rows, lengths.__getitem__, "document"))
    np.testing.assert_array_equal(documents["b"], values[0, 1])
