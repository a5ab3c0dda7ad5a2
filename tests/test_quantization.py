import jax
import models
import numpy as np
import pytest
import tiny

from modernbert_jax import ModernBert, convert, quantization
from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM
from modernbert_jax.quantization import Int8
from modernbert_jax.splade import SparseEncoder


def quantized(params, weights="int8"):
    def leaf(path, x):
        name = "/".join(key.key for key in path)
        return quantization.stored(name, np.asarray(x), weights)

    return jax.tree_util.tree_map_with_path(leaf, params)


def restored(params):
    def leaf(x):
        return x.astype(np.float32)

    return jax.tree.map(leaf, params, is_leaf=lambda x: isinstance(x, Int8))


def parameters(module):
    zeros = np.zeros((1, 64), np.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), zeros, zeros, zeros)
    return tiny.randomised(shapes["params"])


@pytest.mark.parametrize(("name", "channels"), [("a/kernel", (4, 1, 6)), ("embedding", (4, 5, 1))])
def test_a_channel_is_stored_to_half_a_step(name, channels):
    x = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    x *= np.random.default_rng(1).uniform(0.01, 10, channels).astype(np.float32)
    x[0] = 0
    stored = quantization.stored(name, x, "int8")
    assert stored.values.dtype == np.int8 and stored.scales.shape == channels
    assert stored.shape == x.shape and len(stored) == 4
    error = np.abs(np.asarray(stored.astype(np.float32)) - x)
    assert (error <= stored.scales * 0.5001).all() and error.max() > 0
    assert np.abs(stored.values[1:]).max() == 127
    np.testing.assert_array_equal(stored[2], stored.astype(np.float32)[2])


def test_norms_and_biases_stay_float32():
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    for name in ("final_norm/scale", "Wo/bias"):
        for weights in ("bfloat16", "int8"):
            np.testing.assert_array_equal(quantization.stored(name, x, weights), x)
    assert quantization.stored("Wo/kernel", np.ones((2, 2)), "bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("kind", [MaskedLM, pytest.param(SparseEncoder, marks=pytest.mark.slow)])
def test_a_model_computes_with_the_stored_weights(kind):
    """An own decoder is transposed, and the embeddings are looked up."""
    module = kind(tiny.config(tie_word_embeddings=False), Runtime(attention="dense"))
    params = quantized(parameters(module))
    rows = tiny.rows([(20, 12), (30,)], 32)
    options = {"segments": 2} if kind is SparseEncoder else {}
    apply = jax.jit(lambda params: module.apply({"params": params}, *rows, **options))
    np.testing.assert_allclose(apply(params), apply(restored(params)), atol=1e-5)
    assert quantization.nbytes(params) < 0.35 * quantization.nbytes(restored(params))


def test_weights_of_a_loaded_model(tmp_path):
    source = models.write("mean", tmp_path / "model")
    with pytest.raises(UserError, match="weights is 'int4'; did you mean 'int8'"):
        ModernBert.from_pretrained(source, weights="int4")
    bert = ModernBert.from_pretrained(source, weights="int8")
    half = ModernBert(convert.load(source), "bfloat16", weights="bfloat16")
    vectors, theirs = bert.encode(models.TEXTS[:2]), half.encode(models.TEXTS[:2])
    assert vectors.dtype == theirs.dtype == np.float32
    assert 1e-4 < np.abs(vectors - theirs).max() < 0.03
    assert {str(x.dtype) for x in jax.tree.leaves(half.params)} == {"bfloat16", "float32"}
    with pytest.raises(UserError, match="weights are int8; load the model in float32 to save it"):
        bert.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def products(jaxpr):
    """The dtypes of the operands of every product in a program, also in its loops."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(str(x.aval.dtype) for x in equation.invars)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize(
    ("name", "program", "exact"),
    [("masked_lm", "logits", 0), ("sequence", "document_logits", 1), ("dense", "vectors", 2)],
)
def test_bfloat16_computes_products_in_bfloat16(tmp_path, name, program, exact):
    """Pooling, and the layers of an embedding model, are the only products in float32."""
    checkpoint = convert.load(models.write(name, tmp_path / "model"))
    for dtype in ("bfloat16", "float32"):
        bert = ModernBert(checkpoint, dtype, attention="dense")
        rows = tiny.Rows(*(np.zeros((1, 64), np.int32) for _ in range(3)))
        compute = bert.runner.programs[program].compute
        found = [*products(jax.make_jaxpr(compute)(bert.params, rows).jaxpr)]
        floats = [pair for pair in found if pair != ("bfloat16", "bfloat16")]
        assert len(found) > 10
        assert len(floats) == (exact if dtype == "bfloat16" else len(found))
