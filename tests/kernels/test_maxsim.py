"""MaxSim's TPU kernels: no races, nothing read before it is written, and the oracle's values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.scoring import Texts, maxsim, paired_maxsim
from modernbert_jax.scoring.interaction import pallas_tpu, tpu_kernels

QUERIES, DOCUMENTS, TEXTS, WIDTH = (20, 16), (4, 96), 4, 16


@pytest.fixture(autouse=True)
def several_of_everything(monkeypatch):
    """Three tiles of query tokens, two blocks of documents, and chunks of one move each."""
    monkeypatch.setattr(pallas_tpu, "TILE", 128)
    monkeypatch.setattr(pallas_tpu, "BLOCK", 192)
    monkeypatch.setattr(tpu_kernels, "CHUNK", 128)


def run(implementation, ids, dtype, paired):
    """Scores, dq and dd of random vectors, of all pairs or of documents with their own queries."""
    rng = np.random.default_rng(0)
    q, d = (jnp.asarray(rng.standard_normal((*x.shape, WIDTH)), dtype) for x in ids)
    names = [Texts(np.arange(len(x) * TEXTS).reshape(-1, TEXTS), len(x) * TEXTS) for x in ids]
    function, shape = maxsim, [x.total for x in names]
    if paired:
        query_of = rng.integers(-1, shape[0], shape[1])
        function, shape = functools.partial(paired_maxsim, query_of=query_of), shape[1:]
    cotangent = jnp.asarray(rng.standard_normal(shape), jnp.float32)

    @jax.jit
    def both(q, d):
        def scores(q, d):
            sides = {"queries": names[0], "documents": names[1]}
            return function(q, ids[0], d, ids[1], implementation=implementation, **sides)

        value, pull = jax.vjp(scores, q, d)
        return value, *pull(cotangent)

    return [np.asarray(x, np.float32) for x in both(q, d)]


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "documents", [[[90], [30, 40], [], [1, 8, 9]], [[96], [], [], []], [[], [], [], [96]]]
)
@pytest.mark.parametrize("paired", [False, True])
def test_both_passes(paired, documents, dtype):
    ids = tiny.segments([[16], [3, 4, 5], *[[7, 9]] * 18], 16), tiny.segments(documents, 96)
    ids[1][0, 5:9] = 0
    results = (run(name, ids, dtype, paired) for name in ("pallas_tpu", "dense"))
    for got, want in zip(*results, strict=True):
        atol, rtol = (2e-5, 1e-5) if dtype == "float32" else (2e-2, 1e-2)
        np.testing.assert_allclose(got, want, atol=atol, rtol=rtol)
