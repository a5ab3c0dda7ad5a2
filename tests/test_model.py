"""Properties of the encoder for any weights, its initial values, and ways to compute it."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.architecture import FULL, SLIDING
from modernbert_jax.config import PRESETS, Runtime
from modernbert_jax.heads import MaskedLM
from modernbert_jax.initializers import standard_deviation
from modernbert_jax.model import ACTIVATION, Encoder

ROWS = tiny.rows([[20, 1, 9], [33], [5, 17]], 40)


def parameters(module, rows=ROWS, seed=0):
    """Random ones, of a size at which each of them matters."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *rows)["params"]
    return jax.tree.map(jnp.asarray, tiny.randomised(shapes, seed))


def encoder(config, **runtime) -> Encoder:
    """A model with the attention that compiles fastest; other tests compare implementations."""
    return Encoder(config, Runtime(**{"attention": "dense"} | runtime))


def apply(module, params, rows=ROWS, **kwargs):
    return jax.jit(functools.partial(module.apply, **kwargs))({"params": params}, *rows)


def tokens(rows):
    return rows.segment_ids > 0


def loss_of(module, rows):
    """A scalar that depends on every output, those of padding too, and its gradient function."""

    def loss(params):
        out = module.apply({"params": params}, *rows)
        weights = np.random.default_rng(5).standard_normal(out.shape).astype(np.float32)
        return (out * weights).mean()

    return jax.jit(jax.value_and_grad(loss))


# --- properties ------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_types", [None, (SLIDING, FULL, SLIDING, SLIDING, FULL)])
def test_packed_equals_alone(layer_types):
    module = Encoder(tiny.config(layer_types=layer_types))
    params = parameters(module)
    run = jax.jit(module.apply)
    packed = run({"params": params}, *ROWS)
    for row in range(len(ROWS.token_ids)):
        for document in range(1, ROWS.segment_ids[row].max() + 1):
            here = ROWS.segment_ids[row] == document
            alone = tiny.rows([[int(here.sum())]], 40)
            alone.token_ids[0, : here.sum()] = ROWS.token_ids[row, here]
            out = run({"params": params}, *alone)[0, : here.sum()]
            np.testing.assert_allclose(out, packed[row, here], atol=5e-6)


def test_a_document_depends_on_nothing_outside_it():
    module = encoder(tiny.config(num_hidden_layers=3))
    params = parameters(module)
    run = jax.jit(module.apply)
    other = ROWS._replace(
        token_ids=np.where(ROWS.segment_ids == 1, ROWS.token_ids, 95 - ROWS.token_ids)
    )
    before, after = (np.asarray(run({"params": params}, *rows)) for rows in (ROWS, other))
    first = ROWS.segment_ids == 1
    np.testing.assert_array_equal(before[first], after[first])
    assert not np.allclose(before[ROWS.segment_ids == 2], after[ROWS.segment_ids == 2])


def test_scanned_equals_unrolled():
    config = tiny.config(num_hidden_layers=6, global_attn_every_n_layers=2)
    assert config.scan_plan.groups == 2 and len(config.scan_plan.tail) == 1
    scanned, unrolled = (encoder(config, scan_layers=s) for s in (True, False))
    params = parameters(scanned)
    chex.assert_trees_all_equal_shapes(params, parameters(unrolled))
    got, want = (loss_of(m, ROWS)(params) for m in (scanned, unrolled))
    chex.assert_trees_all_close(got, want, atol=1e-6)


def test_stored_layers_are_applied_in_order():
    """The scanned groups against the same layers in an unrolled tail, by `locate`."""
    regular = tiny.config(num_hidden_layers=8)
    # The same kinds, but stored one by one: an extra layer breaks the pattern and then does
    # nothing, because what it adds to the residual stream is zero.
    irregular = tiny.config(num_hidden_layers=9, layer_types=(*regular.layer_kinds, FULL))
    assert irregular.scan_plan.groups == 0
    params = parameters(Encoder(regular))
    moved = parameters(Encoder(irregular))
    for i in range(8):
        path, index = regular.locate(i)
        layer = params
        for key in path:
            layer = layer[key]
        moved[f"layer_{i}"] = jax.tree.map(lambda x, n=index: x if n is None else x[n], layer)
    for part in ("attn", "mlp"):
        moved["layer_8"][part]["Wo"]["kernel"] *= 0
    for name in ("embeddings", "final_norm"):
        moved[name] = params[name]
    want, got = apply(encoder(regular), params), apply(encoder(irregular), moved)
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_rematerialised_equals_plain():
    config = tiny.config(num_hidden_layers=2, global_attn_every_n_layers=1)
    modules = {r: encoder(config, remat=r) for r in ("none", "dots", "full")}
    params = parameters(modules["none"])
    want = loss_of(modules["none"], ROWS)(params)
    products = {}
    for name, module in modules.items():
        chex.assert_trees_all_close(loss_of(module, ROWS)(params), want, rtol=1e-5, atol=1e-7)
        text = str(jax.make_jaxpr(loss_of(module, ROWS))(params))
        products[name] = len(re.findall(r"dot_general\[", text))
    assert products["full"] > products["dots"] >= products["none"], "nothing is computed again"


def test_the_program_does_not_grow_with_depth():
    def lines(layers: int) -> tuple[int, int]:
        module = MaskedLM(tiny.config(num_hidden_layers=layers))
        params = jax.eval_shape(module.init, jax.random.key(0), *ROWS)["params"]
        forward = jax.jit(module.apply).lower({"params": params}, *ROWS).as_text()
        backward = loss_of(module, ROWS).lower(params).as_text()
        return forward.count("\n"), backward.count("\n")

    shallow, deep = lines(4), lines(13)
    assert shallow == deep
    assert lines(5) > deep, "a layer in the tail must show, or the count sees nothing"


def test_a_window_of_twice_the_length_is_global():
    wide = tiny.config(local_attention=80, local_rope_theta=160_000.0)
    everywhere = tiny.config(global_attn_every_n_layers=1)
    params = parameters(Encoder(wide))
    want = apply(encoder(wide), params)
    other = parameters(Encoder(everywhere))
    for i in range(5):
        (path, index), (to, at) = wide.locate(i), everywhere.locate(i)
        layer, into = params, other
        for key in path:
            layer = layer[key]
        for key in to[:-1]:
            into = into[key]
        layer = jax.tree.map(lambda x, n=index: x if n is None else x[n], layer)
        if at is None:
            into[to[-1]] = layer
        else:
            into[to[-1]] = jax.tree.map(lambda s, x, n=at: s.at[n].set(x), into[to[-1]], layer)
    other |= {name: params[name] for name in ("embeddings", "final_norm")}
    got = apply(encoder(everywhere), other)
    np.testing.assert_allclose(got[tokens(ROWS)], want[tokens(ROWS)], atol=2e-6)
    narrow = apply(encoder(tiny.config(local_rope_theta=160_000.0)), params)
    assert np.abs(narrow - want)[tokens(ROWS)].max() > 1e-2, "the window must matter here"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["dense", "xla_range"])
def test_padding_never_gives_nan(dtype, attention):
    rows = tiny.rows([[12, 3], [], [1]], 24)
    module = encoder(tiny.config(num_hidden_layers=2), dtype=dtype, attention=attention)
    params = parameters(module, rows)
    value, grads = loss_of(module, rows)(params)
    chex.assert_tree_all_finite((value, grads))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_layer_0_has_no_attention_norm():
    params = parameters(Encoder(tiny.config(num_hidden_layers=8)))
    assert "attn_norm" not in params["layer_0"]
    assert all("attn_norm" in block for block in params["groups"].values())
    assert "attn_norm" in params["layer_7"]


# --- types -----------------------------------------------------------------------------------


def test_bfloat16_is_close_to_float32():
    config = tiny.config()
    exact, half = (MaskedLM(config, Runtime(dtype=d)) for d in ("float32", "bfloat16"))
    params = parameters(exact)
    want, got = (apply(m, params)[tokens(ROWS)] for m in (exact, half))
    assert got.dtype == jnp.float32
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-4 < error < 0.03


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_hidden_states_are_float32(dtype):
    module = MaskedLM(tiny.config(), Runtime(dtype=dtype))
    params = jax.eval_shape(module.init, jax.random.key(0), *ROWS)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    hidden = jax.eval_shape(lambda p: module.apply({"params": p}, *ROWS, method="hidden"), params)
    assert hidden.dtype == jnp.float32


@pytest.mark.parametrize("name", ACTIVATION)
def test_activations(name):
    x = np.linspace(-4, 4, 33)
    erf = np.vectorize(math.erf)
    gelu_tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    silu = x / (1 + np.exp(-x))
    want = {
        "gelu": 0.5 * x * (1 + erf(x / np.sqrt(2))),
        "gelu_fast": gelu_tanh,
        "gelu_new": gelu_tanh,
        "gelu_pytorch_tanh": gelu_tanh,
        "quick_gelu": x / (1 + np.exp(-1.702 * x)),
        "relu": np.maximum(x, 0),
        "silu": silu,
        "swish": silu,
        "tanh": np.tanh(x),
    }[name]
    np.testing.assert_allclose(ACTIVATION[name](jnp.asarray(x, jnp.float32)), want, atol=1e-6)


# --- dropout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["embedding_dropout", "attention_dropout", "mlp_dropout"])
def test_dropout_only_when_not_deterministic(place):
    plain = encoder(tiny.config(num_hidden_layers=1))
    dropping = encoder(tiny.config(num_hidden_layers=1, **{place: 0.5}))
    params = parameters(plain)
    want = apply(plain, params)
    np.testing.assert_array_equal(apply(dropping, params), want)

    @jax.jit
    def dropped(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return dropping.apply({"params": params}, *ROWS, deterministic=False, rngs=rngs)

    assert not np.allclose(dropped(0), want, atol=0.1)
    assert not np.allclose(dropped(0), dropped(1), atol=0.1)
    np.testing.assert_array_equal(dropped(0), dropped(0))


def test_every_scanned_layer_drops_out_other_values():
    """Each layer adds dropout(1) to a stream of zeros; counts how often an entry survived."""
    config = tiny.config(
        num_hidden_layers=9,
        global_attn_every_n_layers=1,
        attention_bias=True,
        attention_dropout=0.5,
    )
    module = encoder(config)
    params = jax.tree.map(jnp.zeros_like, parameters(module))
    for layer in (params["layer_0"], params["groups"]["global_0"]):
        layer["attn"]["Wo"]["bias"] += 1
    params["final_norm"]["scale"] += 1
    rngs = {"dropout": jax.random.key(0)}
    out = apply(module, params, deterministic=False, rngs=rngs)
    counts = len(np.unique(np.round(out[0, 0], 4)))
    assert counts > 4, "with one mask for all scanned layers there could be 4 at most"


# --- initial values --------------------------------------------------------------------------


def test_initial_values():
    config = tiny.config(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=8,
        global_attn_every_n_layers=1,
        tie_word_embeddings=False,
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        classifier_bias=True,
    )
    params = jax.jit(MaskedLM(config).init)(jax.random.key(0), *ROWS)["params"]
    deviations = {
        "embeddings/embedding": 0.02,
        "Wqkv/kernel": 0.02,
        "Wi/kernel": 0.02,
        "head/dense/kernel": 0.02,
        "Wo/kernel": 0.02 / np.sqrt(2 * 8),
        "decoder/linear/kernel": 128**-0.5,
    }
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        x = np.asarray(leaf)
        if name.endswith("scale"):
            assert (x == 1).all(), name
        elif name.endswith("bias"):
            assert (x == 0).all(), name
        else:
            (role,) = (end for end in deviations if name.endswith(end))
            seen.add(role)
            std = deviations[role]
            # A normal cut at two deviations keeps 0.8796 of its own.
            np.testing.assert_allclose(x.std(), 0.8796 * std, rtol=0.02, err_msg=name)
            assert abs(x.mean()) < 0.03 * std, name
            assert 1.97 * std < np.abs(x).max() <= 2 * std * (1 + 1e-6), name
    assert seen == set(deviations)


def test_scanned_layers_start_differently():
    module = encoder(tiny.config(num_hidden_layers=3, global_attn_every_n_layers=1))
    params = jax.jit(module.init)(jax.random.key(0), *ROWS)["params"]
    kernel = params["groups"]["global_0"]["mlp"]["Wo"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


def test_standard_deviations_of_the_published_sizes():
    """The values of the original research code."""
    assert standard_deviation(PRESETS["base"], "out") == pytest.approx(0.0030151, rel=1e-4)
    assert standard_deviation(PRESETS["large"], "out") == pytest.approx(0.0026726, rel=1e-4)
    assert standard_deviation(PRESETS["base"], "final") == pytest.approx(0.03608, rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 8}, {"layer_types": (SLIDING,) * 5}])
def test_initial_values_do_not_depend_on_the_batch(changes):
    module = MaskedLM(tiny.config(**changes))
    shapes = [
        jax.eval_shape(module.init, jax.random.key(0), *rows)
        for rows in (ROWS, tiny.rows([[3]], 7))
    ]
    chex.assert_trees_all_equal_shapes_and_dtypes(*shapes)


def test_plain_attention_leaves_forward_derivatives():
    module = encoder(tiny.config(), sliding_attention="two_block")
    params = parameters(module)
    tangents = jax.tree.map(lambda p: 1e-2 * p, params)

    def loss(params):
        return (module.apply({"params": params}, *ROWS) ** 3).sum()

    derivative = jax.jit(lambda p, t: jax.jvp(loss, (p,), (t,))[1])(params, tangents)
    grads = jax.jit(jax.grad(loss))(params)
    products = jax.tree.map(lambda g, t: (g * t).sum(), grads, tangents)
    assert float(derivative) == pytest.approx(float(sum(jax.tree.leaves(products))), rel=1e-4)
