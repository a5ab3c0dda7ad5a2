"""The trapezoid, point by point."""

import numpy as np
import pytest

from modernbert_jax.train.schedule import warmup_stable_decay


def test_warmup_plateau_and_one_minus_sqrt():
    s = warmup_stable_decay(2.0, warmup=10, total=100, decay=40, final_fraction=0.1)
    assert [float(s(i)) for i in (0, 5, 10, 59, 60)] == pytest.approx([0, 1, 2, 2, 2])
    for step in (61, 80, 99, 100, 150):
        x = min((step - 60) / 40, 1)
        assert float(s(step)) == pytest.approx(2 * (0.1 + 0.9 * (1 - np.sqrt(x))), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "middle"), [("linear", 0.5), ("cosine", 0.5), ("one_minus_sqrt", 1 - 0.5**0.5)]
)
def test_shapes(shape, middle):
    s = warmup_stable_decay(1.0, 0, 20, 20, shape=shape)
    assert [float(s(i)) for i in (0, 10, 20)] == pytest.approx([1, middle, 0], abs=1e-7)


def test_no_decay_holds_and_no_warmup_starts_at_the_peak():
    s = warmup_stable_decay(0.3, 0, 10, 0)
    assert {float(s(i)) for i in (0, 5, 10, 99)} == {float(np.float32(0.3))} or s(0) == 0.3


def test_works_on_traced_steps():
    import jax
    import jax.numpy as jnp

    s = warmup_stable_decay(1.0, 3, 10, 4)
    steps = jnp.arange(12)
    np.testing.assert_allclose(jax.vmap(s)(steps), [float(s(i)) for i in range(12)], rtol=1e-6)


@pytest.mark.parametrize("bad", [{"shape": "step"}, {"warmup": 8, "decay": 8}, {"decay": -1}])
def test_refuses_what_does_not_fit(bad):
    with pytest.raises(ValueError, match=r"shape|fit"):
        warmup_stable_decay(**{"peak": 1.0, "warmup": 0, "total": 10, "decay": 0} | bad)
