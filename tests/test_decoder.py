"""The causal model: what each token sees, alone and packed, and its language-model head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.architecture import FULL, SLIDING
from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.heads import CausalLM, Classifier, document_pooling
from modernbert_jax.model import Encoder

ROWS = tiny.rows([[20, 1, 9], [33]], 40)


def parameters(module):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *ROWS)["params"]
    return jax.tree.map(jnp.asarray, tiny.randomised(shapes))


@functools.cache
def changed_by(kind, position=12):
    """The tokens of one document whose hidden state depends on the token at `position`."""
    config = tiny.config(num_hidden_layers=1, layer_types=(kind,), causal=True)
    module = Encoder(config, Runtime(attention="dense"))
    params, rows = parameters(module), tiny.rows([[33]], 33)
    other = rows.token_ids.copy()
    other[0, position] = (other[0, position] + 1) % 96
    run = jax.jit(module.apply)
    a, b = (run({"params": params}, ids, *rows[1:]) for ids in (rows.token_ids, other))
    return np.flatnonzero(np.abs(np.asarray(a - b)).max(-1)[0]).tolist()


def test_what_each_token_sees():
    assert changed_by(FULL) == list(range(12, 33))
    # A window of 8 is four tokens, the last of which is the token itself.
    assert changed_by(SLIDING) == [12, 13, 14, 15]


@pytest.mark.parametrize("attention", ["dense", "xla_range"])
def test_packed_equals_alone(attention):
    module = CausalLM(tiny.config(causal=True, num_hidden_layers=3), Runtime(attention=attention))
    params = parameters(module)
    run = jax.jit(module.apply)
    packed = np.asarray(run({"params": params}, *ROWS))
    for row, start, length in ((0, 0, 20), (0, 20, 1), (0, 21, 9), (1, 0, 33)):
        alone = tiny.rows([[length]], 40)
        alone.token_ids[0, :length] = ROWS.token_ids[row, start : start + length]
        want = np.asarray(run({"params": params}, *alone))[0, :length]
        np.testing.assert_allclose(packed[row, start : start + length], want, atol=2e-5)


def test_classifiers():
    config = tiny.config(causal=True, num_hidden_layers=1)
    assert document_pooling(config) == "lasttoken"
    assert document_pooling(tiny.config(classifier_pooling="cls")) == "cls"
    assert "bias" not in parameters(Classifier(config, labels=3))["classifier"]
    assert parameters(Classifier(tiny.config(), labels=3))["classifier"]["bias"].shape == (3,)


def test_a_window_of_nothing():
    with pytest.raises(UserError, match="local_attention is 1; it must be 2 or more in a decoder"):
        tiny.config(causal=True, local_attention=1)
