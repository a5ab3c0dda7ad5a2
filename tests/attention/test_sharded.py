"""Attention and the encoder on a mesh: the single device's result, and no communication.

The tests need eight devices. Where there are fewer, one test runs this file again in a process
that takes the CPU for eight.
"""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.attention import attention, choose, key_ranges
from modernbert_jax.attention.sharded import Shards, shards
from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError
from modernbert_jax.model import Encoder
from modernbert_jax.rope import rope_table

LENGTH, HEADS, WIDTH = 96, 8, 32
ROWS = [[40, 20], [LENGTH], [], [1, 1, 50], [64, 32], [90], [3], [5, 6, 7]]
AXES = ("data", "fsdp", "context", "tensor")


def test_with_eight_devices():
    if jax.device_count() >= 8:
        pytest.skip("there are eight")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    child = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider", "-rs"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert " 1 skipped" in child.stdout, child.stdout


@pytest.fixture
def on():
    """A context with a mesh of these sizes, by the names of axes."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")

    def mesh(axes=AXES, **sizes):
        auto = (AxisType.Auto,) * len(axes)
        sizes = [sizes.get(a, 1) for a in axes]
        return jax.set_mesh(jax.make_mesh(sizes, axes, axis_types=auto))

    return mesh


def collectives(compiled) -> set[str]:
    names = r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|send|recv"
    return set(re.findall(rf"\b(?:{names})\b", compiled.as_text()))


@functools.cache
def inputs():
    rng = np.random.default_rng(0)
    shape = (len(ROWS), LENGTH, HEADS, WIDTH)
    tensors = [rng.standard_normal(shape, np.float32) for _ in range(4)]
    return *tensors, tiny.segments(ROWS, LENGTH)


def both_passes(q, k, v, cotangent, segment_ids, window, implementation):
    """The output and the gradients, with everything that a layer of the model does."""
    ranges = key_ranges(segment_ids, window)
    table = rope_table(jnp.arange(LENGTH)[None] + 0 * segment_ids, 1e4, WIDTH)

    def out(q, k, v):
        options = {"window": window, "rope": table, "implementation": implementation}
        return attention(q, k, v, ranges, **options)

    value, pull = jax.vjp(out, q, k, v)
    return value, *pull(cotangent)


@pytest.mark.parametrize(
    ("sizes", "window", "implementation"),
    [
        ({"data": 2, "fsdp": 2, "tensor": 2}, None, "xla_range"),
        ({"fsdp": 4, "tensor": 2}, 16, "pallas_triton"),
        ({"data": 8}, 16, "dense"),
        ({"tensor": 8}, None, "dense"),
    ],
)
def test_attention_is_that_of_one_device_and_communicates_nothing(
    on, sizes, window, implementation
):
    want = jax.jit(both_passes, static_argnums=(5, 6))(*inputs(), window, "dense")
    with on(**sizes):
        mesh = jax.sharding.get_mesh()
        wide = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
        flat = NamedSharding(mesh, P(("data", "fsdp")))
        compiled = (
            jax.jit(
                both_passes,
                static_argnums=(5, 6),
                in_shardings=(*[wide] * 4, flat),
                out_shardings=wide,
            )
            .lower(*inputs(), window, implementation)
            .compile()
        )
        *tensors, ids = inputs()
        got = compiled(*(jax.device_put(x, wide) for x in tensors), jax.device_put(ids, flat))
    for a, b in zip(got, want, strict=True):
        assert a.sharding.is_equivalent_to(wide, 4)
        np.testing.assert_allclose(a, b, atol=5e-6)
    assert not collectives(compiled)


@pytest.mark.parametrize(
    ("window", "implementation"), [(None, "pallas_tpu"), (None, "pallas_triton"), (16, "xla_range")]
)
def test_a_row_may_be_cut(on, window, implementation):
    """Pieces of 24 tokens are shorter than any halo: keys are gathered for windows as well."""
    want = jax.jit(both_passes, static_argnums=(5, 6))(*inputs(), window, "dense")
    with on(data=2, context=4):
        mesh = jax.sharding.get_mesh()
        wide = NamedSharding(mesh, P("data", "context"))
        placed = [jax.device_put(x, wide) for x in inputs()]
        both = jax.jit(both_passes, static_argnums=(5, 6), out_shardings=wide)
        got = both(*placed, window, implementation)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6)


def test_a_collective_would_be_seen(on):
    with on(data=8):
        flat = NamedSharding(jax.sharding.get_mesh(), P("data"))
        x = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=flat)
        total = jax.jit(jnp.sum).lower(x).compile()
    assert collectives(total) == {"all-reduce"}


def test_the_encoder_is_that_of_one_device(on):
    module = Encoder(tiny.config(num_hidden_layers=2), Runtime())
    rows = tiny.rows([[10, 5], [16], [], [1, 2, 3]], 16)
    init = jax.jit(module.init)(jax.random.key(0), *rows)
    variables = {"params": tiny.randomised(init["params"])}

    def loss(variables, *rows):
        return jnp.sum(module.apply(variables, *rows) ** 2)

    step = jax.value_and_grad(loss)
    value, grads = jax.jit(step)(variables, *rows)
    with on(data=2, fsdp=2, tensor=2):
        flat = NamedSharding(jax.sharding.get_mesh(), P(("data", "fsdp")))
        placed = (jax.device_put(x, flat) for x in rows)
        sharded_value, sharded_grads = jax.jit(step)(variables, *placed)
    np.testing.assert_allclose(sharded_value, value, rtol=1e-5)
    size = {"rtol": 2e-4, "atol": 2e-4 * float(jnp.sqrt(value))}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **size), sharded_grads, grads)


def test_a_callers_own_shard_map_may_have_taken_axes(on):
    q, k, v, _, ids = inputs()
    want = attention(q, k, v, key_ranges(ids), implementation="dense")
    with on(data=4, tensor=2):

        def mine(q, k, v, ids):
            return attention(q, k, v, key_ranges(ids), implementation="xla_range")

        rows = jax.shard_map(
            mine,
            in_specs=P("data"),
            out_specs=P("data"),
            axis_names={"data"},
            check_vma=False,
        )
        got = jax.jit(rows)(q, k, v, ids)
    np.testing.assert_allclose(got, want, atol=3e-6)


def test_the_choice_knows_the_heads_of_one_device(on, caplog):
    caplog.set_level("INFO", "modernbert_jax.attention")
    choose.cache_clear()
    q = jnp.zeros((8, LENGTH, HEADS, WIDTH))
    ids = jnp.ones((8, LENGTH), jnp.int32)
    with on(data=4, tensor=2):
        jax.eval_shape(lambda q, ids: attention(q, q, q, key_ranges(ids)), q, ids)
    assert "96 tokens x 4 heads x 32, float32: xla_range" in caplog.text


def test_what_cannot_be_cut_is_refused_in_one_line(on):
    q, ids = jnp.zeros((8, LENGTH, 3, WIDTH)), jnp.ones((8, LENGTH), jnp.int32)
    with on(data=4, tensor=2):
        with pytest.raises(UserError) as refusal:
            attention(q, q, q, key_ranges(ids))
        assert str(refusal.value) == (
            "attention: 3 heads cannot be divided into 2 equal pieces; change their number or the "
            "size of the mesh over tensor"
        )
        with pytest.raises(UserError, match="6 rows cannot be divided into 4 equal pieces"):
            attention(q[:6], q[:6], q[:6], key_ranges(ids[:6]))


def test_pieces(on):
    assert shards((3, 5, 7, 9)) == Shards(rows=1, tokens=1, heads=1)
    with on(data=2, fsdp=2, tensor=2):
        assert shards((8, 5, 8, 9)) == Shards(rows=4, tokens=1, heads=2)
    with on(axes=("model",), model=8):
        assert shards((3, 5, 7, 9)) == Shards(rows=1, tokens=1, heads=1)
