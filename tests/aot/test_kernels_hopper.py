"""The Hopper kernels compile for H100 without register spills or serialised products."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from gpu_code import loops

from modernbert_jax.attention import attention, key_ranges, pallas_hopper
from modernbert_jax.attention.hopper_tiles import DEFAULT, SWEEP

ROWS, HEADS, SHARED = 3, 12, 232448
"""Rows that no other test compiles, as a process reports each program once; bytes of a block."""

KERNELS = ("attention_fwd", "attention_dkv", "attention_dq")


class Kernel(NamedTuple):
    """Facts of one kernel, as ptxas and the compiler's dumps report them."""

    registers: int
    """Registers of a thread that computes."""
    spilled: int
    serialised: bool
    shared: int
    loops: tuple[int, ...]
    """Instructions, but for moves, of the loop over steps: without and with a mask."""


@pytest.fixture
def compiled(on_mesh, tmp_path, monkeypatch):
    """Compile both passes for H100; return the program and its kernels by name."""
    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))

    def compile_(length: int, dtype: str, **options: int):
        x = jax.ShapeDtypeStruct((ROWS, length, HEADS, 64), dtype)
        ids = jax.ShapeDtypeStruct((ROWS, length), jnp.int32)

        if options:
            function = functools.partial(pallas_hopper.attention, window=None, **options)
        else:  # by name, within what divides work among the devices of a mesh
            function = functools.partial(attention, implementation="pallas_hopper")

        def both(q, k, v, segment_ids, cotangent):
            ranges = key_ranges(segment_ids)
            out, pull = jax.vjp(lambda *x: function(*x, ranges), q, k, v)
            return out, *pull(cotangent)

        with on_mesh("h100"):
            program = jax.jit(both).lower(x, x, x, ids, x).compile()
        return program, {path.name.rsplit("_", 1)[0]: read(path) for path in dumped(tmp_path)}

    return compile_


def dumped(folder):
    return sorted(folder.glob("*.ptxas"))


def read(path) -> Kernel:
    report, ptx = path.read_text(), path.with_suffix(".ptx").read_text()
    with path.with_suffix(".mlir-passes.log").open() as log:
        shared = next(m for line in log if (m := re.search(r"shared_memory_size %c(\d+)_", line)))
    return Kernel(
        registers=int(re.search(r"setmaxnreg\.inc\S+\s+(\d+);", ptx)[1]),
        spilled=sum(int(n) for n in re.findall(r"(\d+) bytes spill", report)),
        serialised="serialized" in report,
        shared=int(shared[1]),
        loops=loops(ptx, "wgmma.mma_async"),
    )


def summary(what, kernels):
    return [
        f"h100 {what:28}{name:14}{k.registers:4} registers {k.spilled:4} B spilled "
        f"{k.shared:7,} B shared  loops {k.loops}"
        for name, k in kernels.items()
    ]


def check(kernels):
    assert not any(k.spilled or k.serialised for k in kernels.values())
    assert all(k.shared < SHARED for k in kernels.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_models_shape(compiled, record_property, dtype):
    program, kernels = compiled(1024, dtype)
    record_property("counted", summary(dtype, kernels))
    assert set(kernels) == set(KERNELS)
    check(kernels)
    for name, tile in zip(KERNELS, DEFAULT, strict=True):
        assert kernels[name].registers == tile.registers
    # lse and delta, float32 for each head, and the bounds of tiles. All scores would be 75 MB.
    assert program.memory_analysis().temp_size_in_bytes < 3 * ROWS * HEADS * 1024 * 4


@pytest.mark.parametrize("number", range(max(len(tiles) for tiles in SWEEP)))
def test_every_tile_of_the_sweep(compiled, record_property, number):
    """One tile of each kernel at a time."""
    options = {k: v for tiles in SWEEP for k, v in tiles[number % len(tiles)].items()}
    _, kernels = compiled(2048, "bfloat16", **options)
    record_property("counted", summary(f"tile {number} of the sweep", kernels))
    check(kernels)


def test_too_large_a_tile_would_be_seen_to_spill(compiled):
    _, kernels = compiled(4096, "bfloat16", dq_warpgroups=4)
    assert kernels["attention_dq"].spilled > 0
    assert kernels["attention_dq"].serialised
