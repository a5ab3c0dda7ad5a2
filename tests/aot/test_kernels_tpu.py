"""The TPU kernels compile for every TPU, without collectives and in memory linear in length."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.attention import attention, key_ranges
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.heads import MaskedLM
from modernbert_jax.rope import rope_table
from modernbert_jax.scoring import Texts, maxsim, paired_maxsim

TPUS = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")
COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)")
KERNELS = (
    "local_attention_forward",
    "local_attention_backward",
    "global_attention_forward",
    "global_attention_backward",
    "global_attention_delta",
    "rope",
)


def compile_layers(
    devices,
    length,
    heads,
    *,
    second="tensor",
    implementation="auto",
    head_dim=64,
    dtype="bfloat16",
    rows=1,
    causal=False,
):
    """A sliding and a full layer in turn, rotations included, with their gradients.

    Inputs have the layout of the projections. Four devices are a mesh of 2 x 2, data and a
    second axis: "tensor", which shards heads, or "context", which shards rows.
    """
    shape = (2, 2) if len(devices) == 4 else (1, 1)
    mesh = jax.sharding.Mesh(
        np.array(devices).reshape(shape), ("data", second), axis_types=(AxisType.Auto,) * 2
    )
    cut = {"tensor": P("data", None, "tensor"), "context": P("data", "context")}[second]

    def layers(qkv, cotangent, segments, positions):
        table = rope_table(positions, 10_000.0, head_dim)

        def out(q, k, v):
            for window in (128, None):
                ranges = key_ranges(segments, window, causal=causal)
                q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
                output = attention(
                    q, k, v, ranges, window=window, rope=table, implementation=implementation
                )
                q = k = v = output.reshape(cotangent.shape)
            return q

        value, pull = jax.vjp(out, *qkv)
        return value, pull(cotangent)

    def on_mesh(shape, dtype, spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    rows *= shape[0]
    x = on_mesh((rows, length, heads * head_dim), dtype, cut)
    tokens = on_mesh((rows, length), jnp.int32, P("data"))
    with jax.set_mesh(mesh):
        return jax.jit(layers).lower((x, x, x), x, tokens, tokens).compile()


def assert_our_kernels(compiled):
    text = compiled.as_text()
    assert not [name for name in KERNELS if name not in text]
    return text


@pytest.mark.parametrize("heads", [12, 16, 28])
@pytest.mark.parametrize("length", [512, 1024, 2048, 4096, 8192])
@pytest.mark.parametrize("target", TPUS)
def test_they_compile_in_linear_memory(devices, target, length, heads):
    """At most that of ten tensors like q; the scores alone would be 256 times q at 8,192."""
    compiled = compile_layers(devices(target)[:1], length, heads)
    assert_our_kernels(compiled)
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * length * heads * 64 * 2


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (1000, {}),
        (1024, {"dtype": "float32"}),
        (1024, {"head_dim": 128}),
        (1024, {"head_dim": 32}),
        (1024, {"rows": 5}),
        (1024, {"causal": True}),
    ],
)
def test_other_shapes_compile(devices, length, options):
    assert_our_kernels(compile_layers(devices("v5e:2x2")[:1], length, 4, **options))


def compile_maxsim(device, texts=22, width=128, dtype="bfloat16", row=2048, paired=False):
    """Both passes of MaxSim of `texts` queries of 32 tokens with as many documents of 180.

    Of all pairs, or of each document with a query of its own.
    """
    mesh = jax.sharding.Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))
    count = row // 180
    shapes = (texts, 32, width), (texts // count, row, width)
    q, d = (jax.ShapeDtypeStruct(x, dtype, sharding=NamedSharding(mesh, P())) for x in shapes)
    ids = [jax.ShapeDtypeStruct(x.shape[:2], jnp.int32, sharding=x.sharding) for x in (q, d)]
    queries = Texts(np.arange(texts)[:, None], texts)
    documents = Texts(np.arange(texts).reshape(-1, count), texts)

    def loss(q, d, ids):
        function = functools.partial(paired_maxsim, query_of=np.arange(texts)) if paired else maxsim
        scores = function(q, ids[0], d, ids[1], queries=queries, documents=documents)
        return jax.nn.logsumexp(scores, axis=-1).sum()

    with jax.set_mesh(mesh):
        return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(q, d, ids).compile()


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("target", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_maxsim_compiles(devices, target, paired):
    text = compile_maxsim(devices(target)[0], paired=paired).as_text()
    assert "maxsim_forward" in text
    assert "maxsim_backward" in text


@pytest.mark.parametrize("options", [{"width": 48}, {"dtype": "float32"}, {"row": 200}])
def test_maxsim_of_other_shapes_compiles(devices, options):
    assert "maxsim_backward" in compile_maxsim(devices("v5e:2x2")[0], **options).as_text()


def test_maxsim_of_a_large_batch_takes_64_megabytes(devices, record_property):
    """The products of all tokens in bfloat16 would be 12 GB."""
    temporary = compile_maxsim(devices("v5e:2x2")[0], 1023).memory_analysis().temp_size_in_bytes
    record_property("counted", [f"v5e maxsim, batch 1,023: {temporary:,} temporary bytes"])
    assert temporary <= 64e6


@pytest.mark.parametrize("heads", [12, 16, 28])
@pytest.mark.parametrize("target", TPUS)
def test_nothing_is_communicated(devices, target, heads):
    text = assert_our_kernels(compile_layers(devices(target)[:4], 1024, heads))
    assert not COLLECTIVE.findall(text)


@pytest.mark.parametrize("target", ["v4:2x2x1", "v5e:2x2", "v6e:2x2"])
def test_rows_that_are_cut_take_the_kernels_too(devices, target):
    """Halos for sliding layers; for full ones, keys of all pieces and sums of their gradients."""
    compiled = compile_layers(devices(target)[:4], 8192, 12, second="context")
    text = assert_our_kernels(compiled)
    assert set(COLLECTIVE.findall(text)) <= {"all-gather", "reduce-scatter", "collective-permute"}
    assert compiled.memory_analysis().temp_size_in_bytes < 14 * 8192 * 12 * 64 * 2


def test_heads_are_never_padded_to_lanes(devices):
    """A tensor of heads [.., N, 64] takes twice the memory, and a copy to make."""
    text = compile_layers(devices("v5e:2x2")[:1], 1024, 12).as_text()
    assert not re.findall(r"(?:bf16|f32)\[(?:\d+,)*12,64\]\{", text)


@pytest.mark.parametrize("target", ["v5e:2x2", "v4:2x2x1"])
def test_the_model_trains_with_them(devices, target):
    """Scanned and rematerialised, and still without a copy of heads to lanes."""
    config = ModernBertConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=7,
        num_attention_heads=4,
        pad_token_id=0,
    )
    mesh = jax.sharding.Mesh(np.array(devices(target)[:4]), ("data",), axis_types=(AxisType.Auto,))
    module = MaskedLM(config, Runtime(dtype="bfloat16", remat="full"))
    rows = [jax.ShapeDtypeStruct((8, 1024), jnp.int32) for _ in range(3)]
    variables = jax.eval_shape(module.init, jax.random.key(0), *rows)

    def placed(tree, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    def loss(variables, rows):
        return module.apply(variables, *rows).astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss)).lower(placed(variables, P()), placed(rows, P("data")))
        text = assert_our_kernels(lowered.compile())
    assert not re.findall(r"(?:bf16|f32)\[(?:\d+,)*1024,4,64\]\{", text)


def test_an_odd_number_of_heads_per_device_falls_back(devices):
    compiled = compile_layers(devices("v5e:2x2"), 512, 6)
    assert "splash" in compiled.as_text()
    assert not COLLECTIVE.findall(compiled.as_text())
    with pytest.raises(UserError, match="3 heads of 64 per device"):
        compile_layers(devices("v5e:2x2"), 512, 6, implementation="pallas_tpu")
