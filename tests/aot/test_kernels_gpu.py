"""The GPU kernel compiles for every generation, in linear memory and without register spills."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu_code import assembled, loops
from jaxlib.mlir import ir

from modernbert_jax.attention import attention, key_ranges
from modernbert_jax.scoring import Texts, maxsim, paired_maxsim

GPUS = {"a100": ("8.0", "sm_80"), "l4": ("8.9", "sm_89"), "h100": ("9.0", "sm_90a")}
GPUS["b200"] = ("10.0", "sm_100a")
"""Compute capability, as Triton and as ptxas call it."""

SHARED = {"a100": 167936, "l4": 102400, "h100": 233472, "b200": 233472}
THREADS = {"a100": 2048, "l4": 1536, "h100": 2048, "b200": 2048}
"""Bytes and threads of a multiprocessor; it has 65,536 registers."""

HEADS = 12
WINDOWS = {"sliding": 128, "full": None}


def lowered(on_mesh, target, window, length, head_dim=64, dtype="bfloat16"):
    """Forward and backward pass of one packed row, as `auto` computes it on the target."""

    def both(q, k, v, segment_ids, cotangent):
        ranges = key_ranges(segment_ids, window)
        out, pull = jax.vjp(lambda *x: attention(*x, ranges, window=window), q, k, v)
        return out, *pull(cotangent)

    x = jax.ShapeDtypeStruct((1, length, HEADS, head_dim), dtype)
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32)
    with on_mesh(target):
        return jax.jit(both).lower(x, x, x, ids, x)


class Kernel(NamedTuple):
    """Facts of one kernel, as ptxas reports them."""

    name: str
    warps: int
    registers: int
    spilled: int
    shared: int
    loops: tuple[int, ...]
    """Instructions, but for moves, of each loop: with a mask, and in the middle one without."""

    def warps_at_once(self, target: str) -> int:
        """Warps that fit a multiprocessor together."""
        by_registers = 65536 // (-(-self.registers // 8) * 8 * 32 * self.warps)
        by_memory = SHARED[target] // (self.shared + 1024)
        return self.warps * min(by_registers, by_memory, THREADS[target] // (32 * self.warps))


def kernels(lowered, target) -> list[Kernel]:
    """Compiles each Triton kernel of a program as the driver would."""
    from jax_plugins.xla_cuda12 import triton

    capability, arch = GPUS[target]
    programs = []

    def visit(op):
        known = op.attributes
        if "call_target_name" not in known or "triton" not in str(known["call_target_name"]):
            return ir.WalkResult.ADVANCE
        config = ir.DictAttr(known["mhlo.backend_config"])
        warps = ir.IntegerAttr(config["num_warps"]).value
        compiled = triton.compile(
            "cuda",
            ir.StringAttr(config["ir"]).value_bytes,
            capability,
            num_warps=warps,
            num_ctas=1,
            num_stages=ir.IntegerAttr(config["num_stages"]).value,
        )
        report = assembled(compiled.asm, arch)
        programs.append(
            Kernel(
                name=ir.StringAttr(config["name"]).value,
                warps=warps,
                registers=int(re.search(r"Used (\d+) registers", report)[1]),
                spilled=sum(int(n) for n in re.findall(r"(\d+) bytes spill", report)),
                shared=compiled.smem_bytes,
                loops=loops(compiled.asm),
            )
        )
        return ir.WalkResult.ADVANCE

    lowered.compiler_ir().operation.walk(visit)
    return programs


def summary(target, what, programs):
    return [
        f"{target:5}{what:22}{k.name:14}{k.warps:2} warps {k.registers:4} registers "
        f"{k.spilled:4} B spilled {k.shared:7,} B shared "
        f"{k.warps_at_once(target):3} warps at once  loops {k.loops}"
        for k in programs
    ]


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("target", GPUS)
def test_the_models_shape_is_compiled_in_linear_memory_without_spills(
    on_mesh, record_property, target, kind
):
    short, long = (lowered(on_mesh, target, WINDOWS[kind], n) for n in (1024, 8192))
    programs = kernels(long, target)
    record_property("counted", summary(target, kind, programs))
    assert [k.name for k in programs] == ["attention_fwd", "attention_dkv", "attention_dq"]
    assert not any(k.spilled for k in programs)
    temporary = [x.compile().memory_analysis().temp_size_in_bytes for x in (short, long)]
    # lse and delta, float32 for each head, and the bounds of tiles. All scores would be 3 GiB.
    assert temporary[1] < 3 * HEADS * 8192 * 4
    assert temporary[1] < 1.1 * 8 * temporary[0]


# In 32 bits all layers take the same kernel, and those of bfloat16 and float16 are much alike.
@pytest.mark.parametrize(
    ("kind", "head_dim", "dtype"),
    [
        *(("full", width, dtype) for width in (32, 128) for dtype in ("bfloat16", "float32")),
        *(("full", 64, dtype) for dtype in ("float16", "float32")),
        *(("sliding", width, "float16") for width in (32, 64, 128)),
    ],
)
@pytest.mark.parametrize("target", GPUS)
def test_other_shapes_do_not_spill_either(on_mesh, record_property, target, kind, head_dim, dtype):
    programs = kernels(lowered(on_mesh, target, WINDOWS[kind], 1024, head_dim, dtype), target)
    record_property("counted", summary(target, f"{kind}, {head_dim} {dtype}", programs))
    assert len(programs) == 3
    assert not any(k.spilled for k in programs)


def lowered_maxsim(on_mesh, target, texts, width=128, dtype="bfloat16", paired=False):
    """Both passes of MaxSim of `texts` queries of 32 tokens with as many documents of 180.

    Of all pairs, or of each document with a query of its own.
    """
    q = jax.ShapeDtypeStruct((texts, 32, width), dtype)
    d = jax.ShapeDtypeStruct((-(-texts // 11), 2048, width), dtype)
    ids = [jax.ShapeDtypeStruct(x.shape[:2], jnp.int32) for x in (q, d)]
    queries = Texts(np.arange(texts)[:, None], texts)
    documents = Texts(np.arange(11 * d.shape[0]).reshape(-1, 11), texts)
    function = functools.partial(paired_maxsim, query_of=np.arange(texts)) if paired else maxsim

    def both(q, d, ids, cotangent):
        def scores(q, d):
            return function(q, ids[0], d, ids[1], queries=queries, documents=documents)

        out, pull = jax.vjp(scores, q, d)
        return out, *pull(cotangent)

    with on_mesh(target):
        shape = (texts,) if paired else (texts, texts)
        cotangent = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.jit(both).lower(q, d, ids, cotangent)


@pytest.mark.parametrize(
    ("width", "dtype"), [(128, "bfloat16"), (48, "bfloat16"), (128, "float32")]
)
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("target", GPUS)
def test_maxsim_is_compiled_without_spills(on_mesh, record_property, target, paired, width, dtype):
    program = lowered_maxsim(on_mesh, target, 64, width, dtype, paired)
    programs = kernels(program, target)
    what = "pairs" if paired else "maxsim"
    record_property("counted", summary(target, f"{what}, {width} {dtype}", programs))
    names = ["maxsim_forward", "maxsim_winners", "maxsim_dq", "maxsim_dd"]
    assert [k.name for k in programs] == names
    assert not any(k.spilled for k in programs if target != "b200")
    assert all(k.spilled <= 24 for k in programs)


@pytest.mark.parametrize("target", ["h100"])
def test_maxsim_of_a_large_batch_takes_64_megabytes(on_mesh, record_property, target):
    """The products of all tokens in bfloat16 would be 12 GB."""
    memory = lowered_maxsim(on_mesh, target, 1024).compile().memory_analysis()
    temporary = memory.temp_size_in_bytes
    record_property("counted", [f"{target:5}maxsim, batch 1,024: {temporary:,} temporary bytes"])
    assert temporary <= 64e6


def test_too_large_a_tile_would_be_seen_to_spill(on_mesh, monkeypatch, tmp_path):
    table = '{"NVIDIA A100": {"full": {"pallas_triton": {"fwd_q": 128, "fwd_k": 128}}}}'
    path = tmp_path / "tuning.json"
    path.write_text(table.replace("}}}}", ', "fwd_warps": 4}}}}'))
    monkeypatch.setenv("MODERNBERT_JAX_TUNING", str(path))
    from modernbert_jax.attention import choose

    choose.cache_clear()
    programs = kernels(lowered(on_mesh, "a100", None, 512), "a100")
    choose.cache_clear()
    assert programs[0].spilled > 0
