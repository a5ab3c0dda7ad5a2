"""XTR's scores by their definition, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax.scoring import xtr


def by_definition(q, counts, d, places, documents, top_k):
    scores = np.zeros((len(q), documents))
    real = np.flatnonzero(places >= 0)
    for n, query in enumerate(q):
        for m in range(documents):
            retrieved = []
            for token in np.flatnonzero(counts[n]):
                products = d[real] @ query[token]
                best = real[np.argsort(-products, kind="stable")[:top_k]]
                own = [d[t] @ query[token] for t in best if places[t] == m]
                retrieved += [max(own)] if own else []
            scores[n, m] = np.mean(retrieved) if retrieved else 0
    return scores


@pytest.mark.parametrize("top_k", [1, 4, 99])
def test_scores_and_gradients(top_k):
    rng = np.random.default_rng(0)
    q, d = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 4), (14, 4)))
    counts = np.ones((3, 5), np.int32)
    counts[1, 3:] = 0
    places = np.array([0, 0, -1, 1, 1, 1, 2, -1, 3, 3, 3, 3, -1, 5])  # document 4 has no token
    scores = xtr(q, counts, d, places, 6, top_k)
    expected = by_definition(q, counts, d, places, 6, top_k)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert (expected == 0).any()
    weights = rng.standard_normal((3, 6))

    def loss(q, d):
        return (xtr(q, counts, d, places, 6, top_k) * weights).sum()

    of_q, of_d = jax.grad(loss, (0, 1))(jnp.asarray(q), jnp.asarray(d))
    step = 1e-3 * rng.standard_normal(d.shape).astype(np.float32)
    after, before = (by_definition(q, counts, x, places, 6, top_k) for x in (d + step, d - step))
    assert float((of_d * step).sum()) * 2 == pytest.approx(
        ((after - before) * weights).sum(), rel=2e-2
    )
    assert np.isfinite(of_q).all() and not np.asarray(of_d)[places < 0].any()
