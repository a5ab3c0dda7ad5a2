"""The Hopper kernels, interpreted, against the dense oracle."""

import functools

import hopper
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from calls import call

from modernbert_jax.attention import choose, dense, key_ranges, pallas_hopper
from modernbert_jax.attention.hopper_tiles import OPTIONS, SWEEP, Tile, tiles_for
from modernbert_jax.errors import UserError

LENGTH = 200
"""More than three steps of 64 and no multiple of one: two blocks, of which the last has padding."""

NARROW = {"fwd_warpgroups": 2}


@functools.cache
def tensors():
    rng = np.random.default_rng(0)
    shape = (2, LENGTH, 1, 64)
    return tuple(jnp.asarray(rng.standard_normal(shape), "float16") for _ in range(4))


def ranges_of(segments, window, causal=False):
    """Ranges with their transposition: every relation is the same program's argument."""
    ranges = key_ranges(jnp.asarray(segments), window, causal=causal)
    return ranges._replace(queries=ranges.transposed)


def both(attention, q, k, v, cotangent, ranges):
    """The output and the three gradients."""
    out, pull = jax.vjp(lambda *x: attention(*x, ranges, window=None), q, k, v)
    return out, *pull(cotangent)


oracle = jax.jit(functools.partial(both, dense.attention))


@pytest.fixture(scope="module")
def interpreted():
    """Both passes by the kernels, as one compiled program."""
    kernels = functools.partial(pallas_hopper.attention, **NARROW)
    with hopper.interpreter():
        yield jax.jit(functools.partial(both, kernels))


@pytest.mark.parametrize(
    ("rows", "window", "causal"),
    [
        ([[70, 1, 100], [LENGTH]], None, False),
        ([[64, 64, 72], [1] * 90], 64, True),
    ],
)
def test_packed_rows(interpreted, rows, window, causal):
    segments = tiny.segments(rows, LENGTH)
    ranges = ranges_of(segments, window, causal)
    want = oracle(*(x.astype("float32") for x in tensors()), ranges)
    got = interpreted(*tensors(), ranges)
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        assert a.dtype == jnp.float16
        a = np.asarray(a, np.float32)
        np.testing.assert_allclose(a, b, atol=4e-3, rtol=0, err_msg=name)
        assert not a[segments == 0].any(), f"{name} of padding"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"dtype": "float16", "capability": (9, 0)}, None),
        ({"device_kind": "NVIDIA GH200 480GB"}, None),
        ({"device_kind": "NVIDIA A100-SXM4-80GB"}, "Hopper GPUs, not NVIDIA A100"),
        ({"device_kind": "NVIDIA B200", "capability": (10, 0)}, "Hopper GPUs, not NVIDIA B200"),
        ({"platform": "cpu", "device_kind": "cpu"}, "Hopper GPUs, not cpu"),
        ({"dtype": "float32"}, "16 bits, not in float32"),
        ({"head_dim": 128}, "heads of 128; it has tiles for 64"),
    ],
)
def test_what_it_refuses(changes, reason):
    refusal = pallas_hopper.refuses(call(**changes))
    assert refusal is None if reason is None else reason in refusal


def test_auto_does_not_choose_it_unless_it_is_tuned(tmp_path, monkeypatch):
    choose.cache_clear()
    assert choose("auto", call()).name == "pallas_triton"
    path = tmp_path / "tuning.json"
    path.write_text('{"NVIDIA H100": {"full": {"implementation": "pallas_hopper"}}}')
    monkeypatch.setenv("MODERNBERT_JAX_TUNING", str(path))
    choose.cache_clear()
    assert choose("auto", call()).name == "pallas_hopper"
    assert choose("auto", call(window=128)).name == "pallas_triton"
    assert choose("auto", call(dtype="float32")).name == "pallas_triton"
    choose.cache_clear()


def test_every_option_reaches_its_tile():
    for name in OPTIONS:
        kernel, part = name.split("_")
        value = {"warpgroups": 2, "step": 128, "stages": 5}[part]
        assert getattr(getattr(tiles_for({name: value}), kernel), part) == value
    assert {name for group in SWEEP for options in group for name in options} <= set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [("fwd_warpgroups", 3, "2, 4"), ("dkv_step", 32, "64, 128"), ("dq_stages", 1, "2, 3, 4")],
)
def test_a_tile_that_cannot_be_is_refused(name, value, known):
    with pytest.raises(UserError, match=f"{name} is {value}; it must be one of {known}"):
        tiles_for({name: value})


@pytest.mark.parametrize("warpgroups", [2, 4])
def test_registers_are_those_of_a_multiprocessor(warpgroups):
    tile = Tile(warpgroups, 64, 2)
    assert tile.registers % 8 == 0
    assert 128 * (warpgroups * tile.registers + 24) <= 65536
