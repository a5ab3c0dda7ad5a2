"""Pooling against loops, and the masked-LM head's parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.config import Runtime
from modernbert_jax.heads import POOLINGS, MaskedLM, pool

SEGMENTS = tiny.segments([[3, 1, 6], [], [12], [2, 2, 2, 2, 2]], 12)


def by_loops(hidden, segment_ids, segments, how, skip=0):
    out = np.zeros((hidden.shape[0], segments, hidden.shape[2]), np.float32)
    for b, ids in enumerate(segment_ids):
        for s in range(1, segments + 1):
            document = hidden[b, ids == s][skip:]
            if len(document):
                weights = np.arange(skip + 1, skip + 1 + len(document))[:, None]
                results = {
                    "cls": document[0],
                    "max": document.max(0),
                    "mean": document.mean(0),
                    "mean_sqrt_len_tokens": document.sum(0) / len(document) ** 0.5,
                    "weightedmean": (document * weights).sum(0) / weights.sum(),
                    "lasttoken": document[-1],
                }
                out[b, s - 1] = results[how]
    return out


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("segments", [5, 7])
def test_pool_equals_loops(how, segments):
    # Negative throughout, so that a zero from padding would win a maximum.
    hidden = -1 - np.random.default_rng(0).random((4, 12, 6), np.float32)
    got = pool(jnp.asarray(hidden), jnp.asarray(SEGMENTS), segments, how)
    assert got.shape == (4, segments, 6)
    np.testing.assert_allclose(got, by_loops(hidden, SEGMENTS, segments, how), atol=1e-6)


@pytest.mark.parametrize("how", POOLINGS)
def test_pool_without_the_first_tokens(how):
    hidden = -1 - np.random.default_rng(0).random((4, 12, 6), np.float32)
    got = pool(jnp.asarray(hidden), jnp.asarray(SEGMENTS), 5, how, 2)
    np.testing.assert_allclose(got, by_loops(hidden, SEGMENTS, 5, how, 2), atol=1e-6)


def test_pool_without_a_prompt_of_each_document():
    """Documents of a row may have prompts of different lengths."""
    hidden = -1 - np.random.default_rng(0).random((4, 12, 6), np.float32)
    skip = np.random.default_rng(1).integers(0, 3, (4, 5))
    got = pool(jnp.asarray(hidden), jnp.asarray(SEGMENTS), 5, "mean", skip)
    for n in range(3):
        want = by_loops(hidden, SEGMENTS, 5, "mean", n)
        np.testing.assert_allclose(got[skip == n], want[skip == n], atol=1e-6)


@pytest.mark.parametrize("how", ["cls", "mean", "max", "weightedmean", "lasttoken"])
def test_pool_of_bfloat16_is_float32(how):
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((4, 12, 6)), jnp.bfloat16)
    got = pool(hidden, jnp.asarray(SEGMENTS), 5, how)
    assert got.dtype == jnp.float32
    want = by_loops(np.asarray(hidden, np.float32), SEGMENTS, 5, how)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("how", ["cls", "mean", "max", "weightedmean", "lasttoken"])
def test_gradients_of_pooling_stay_in_the_document(how):
    hidden = jnp.asarray(np.random.default_rng(0).standard_normal((4, 12, 6)), jnp.float32)
    grad = jax.grad(lambda h: pool(h, jnp.asarray(SEGMENTS), 5, how)[0, 2].sum())(hidden)
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(grad.sum(axis=(0, 1)), np.ones(6), rtol=1e-6)
    assert not np.asarray(grad)[1:].any() and not np.asarray(grad)[0, SEGMENTS[0] != 3].any()


def test_unknown_pooling():
    with pytest.raises(ValueError, match="pooling is 'first'; it must be one of cls, "):
        pool(jnp.zeros((1, 2, 3)), jnp.ones((1, 2), jnp.int32), 1, "first")


ROWS = tiny.rows([[5, 3]], 10)


def logits_and_params(**changes):
    module = MaskedLM(tiny.config(num_hidden_layers=1, **changes), Runtime(attention="dense"))
    shapes = jax.eval_shape(module.init, jax.random.key(0), *ROWS)["params"]
    params = tiny.randomised(shapes)
    run = jax.jit(functools.partial(module.apply, method="logits"))
    hidden = np.random.default_rng(1).standard_normal((7, 32)).astype(np.float32)
    return hidden, run({"params": params}, hidden), params


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_masked_lm_head_is_dense_activation_norm_decoder(tied, bias):
    hidden, logits, params = logits_and_params(
        tie_word_embeddings=tied, decoder_bias=bias, classifier_bias=True, norm_bias=True
    )
    dense, norm = params["head"]["dense"], params["head"]["norm"]
    x = hidden.astype(np.float64) @ dense["kernel"] + dense["bias"]
    x = np.asarray(jax.nn.gelu(x, approximate=False), np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * norm["scale"] + norm["bias"]
    table = params["encoder"]["embeddings"]["embedding"].T
    want = x @ (table if tied else params["decoder"]["linear"]["kernel"])
    if bias:
        want = want + params["decoder"]["bias"]
    np.testing.assert_allclose(logits, want, atol=2e-5)


def test_calling_the_model_is_hidden_then_logits():
    module = MaskedLM(tiny.config(num_hidden_layers=1), Runtime(attention="dense"))
    shapes = jax.eval_shape(module.init, jax.random.key(0), *ROWS)["params"]
    params = {"params": tiny.randomised(shapes)}

    @jax.jit
    def both(params):
        hidden = module.apply(params, *ROWS, method="hidden")
        return module.apply(params, *ROWS), module.apply(params, hidden, method="logits")

    logits, apart = both(params)
    assert logits.shape == (1, 10, 96) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, apart, atol=1e-6)
