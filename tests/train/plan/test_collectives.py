"""Collectives of compiled programs, from texts as compilers for GPU and TPU write them."""

from types import SimpleNamespace

import numpy as np
import pytest

from modernbert_jax.train.plan import collectives as reader
from modernbert_jax.train.plan.collectives import Collective, collectives

GPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], bf16[64])) -> (s32[], bf16[64]) {
  %x = bf16[64]{0} get-tuple-element(%p), index=1
  %all-reduce-start = bf16[64]{0} all-reduce-start(%x), channel_id=2, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, use_global_device_ids=true, to_apply=%add, metadata={op_name="jit(step)/while"}
  %all-reduce-done = bf16[64]{0} all-reduce-done(%all-reduce-start)
}

%seven (p: (s32[], bf16[64])) -> pred[] {
  %seven.1 = s32[] constant(7)
  ROOT %less = pred[] compare(%i, %seven.1), direction=LT
}

%outer (p: (s32[], bf16[64])) -> (s32[], bf16[64]) {
  %while.1 = (s32[], bf16[64]{0}) while(%tuple), condition=%seven, body=%inner, metadata={op_name="x"}
}

%three (p: (s32[], bf16[64])) -> pred[] {
  ROOT %less.1 = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p0: f32[128,16]) -> f32[] {
  %ag = (f32[16,16]{1,0}, f32[64,16]{1,0}) all-gather-start(%p0), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}, use_global_device_ids=true
  %ag.1 = f32[64,16]{1,0} all-gather-done(%ag)
  %many = ((s32[4]{0}, s32[4]{0}), (s32[16]{0}, s32[16]{0})) all-gather-start(%a, %b), channel_id=4, replica_groups={{0,4},{1,5},{2,6},{3,7}}, dimensions={0}
  %rs = ((f32[1024]{0}), f32[128]{0}) reduce-scatter-start(%y), channel_id=3, replica_groups=mesh['axis_0'=8] {'axis_0'}, dimensions={0}, to_apply=%add
  %none = s32[] all-reduce(%z), channel_id=9, replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  %while.2 = (s32[], bf16[64]{0}) while(%t), condition=%three, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
  %cp = f32[4]{0} collective-permute(%q), channel_id=6, source_target_pairs={{0,0},{1,2},{2,1},{3,3}}
  %aa = (f32[2]{0}, f32[2]{0}) all-to-all(%u, %v), channel_id=7, replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_2'}
  ROOT %call = f32[] call(%rs), to_apply=%add
}
"""  # noqa: E501

TPU = """\
HloModule jit_step, is_scheduled=true

%body.spmd (p: f32[3]) -> f32[3] {
  %all-reduce.1 = (bf16[768,768]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[3]{0:T(128)}) all-reduce(%a, %b), channel_id=36, replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=1] {'axis_0','axis_1'}, use_global_device_ids=true, to_apply=%add.24.clone
}

%condition.spmd (p: f32[3]) -> pred[] {
  %few = s32[]{:T(128)} constant(2)
  %many = s32[]{:T(128)} constant(9)
}

%fused (p: f32[3]) -> f32[3] {
  %inside = f32[3]{0:T(128)} all-reduce(%c), channel_id=5, replica_groups={{0,1,2,3}}, to_apply=%add
}

ENTRY %main.spmd (p: f32[3]) -> f32[3] {
  %while.5 = (s32[]{:T(128)}, f32[3]{0:T(128)}) while(%tuple.1), condition=%condition.spmd, body=%body.spmd, backend_config={"flag_configs":[]}
  %permute = (bf16[8,64]{1,0}, bf16[8,64]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=43, source_target_pairs={{0,1},{1,2},{2,3}}
  ROOT %fusion.1 = f32[3]{0:T(128)} fusion(%y), kind=kCustom, calls=%fused
}
"""  # noqa: E501


def mesh(**sizes):
    shape = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1} | sizes
    return SimpleNamespace(
        shape=shape, axis_names=tuple(shape), size=int(np.prod(list(shape.values())))
    )


def test_what_a_gpu_program_sends():
    result = collectives(GPU, mesh(data=2, context=4))
    assert {(c.kind, c.axes): (c.times, c.bytes) for c in result} == {
        # Three times seven in two loops; 2 x 7/8 of 128 bytes each.
        ("all-reduce", ("data", "context")): (21, 21 * 224),
        ("all-gather", ("context",)): (1, 64 * 16 * 4 * 3 // 4),
        ("all-gather", ("data",)): (1, 2 * 64 // 2),
        ("reduce-scatter", ("data", "context")): (1, 7 * 512),
        ("collective-permute", ("context",)): (1, 16),
        ("all-to-all", ("data",)): (1, 8),
    }
    assert all(c.counted for c in result)
    assert [c.bytes for c in result] == sorted((c.bytes for c in result), reverse=True)


def test_what_a_tpu_program_sends():
    result = collectives(TPU, mesh(fsdp=4))
    once = round((768 * 768 * 2 + 12) * 1.5)
    assert result == [
        # The loop's iterations are unknown: two constants could be its bound.
        Collective("all-reduce", ("fsdp",), 2, once + 18, counted=False),
        Collective("collective-permute", ("fsdp",), 1, 1024),
    ]


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ("replica_groups=[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        (
            "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}",
            [[0, 4], [1, 5], [2, 6], [3, 7]],
        ),
        ("replica_groups={}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_forms_of_groups(given, groups):
    assert (
        reader.device_groups(f"%x = f32[] all-reduce(%y), {given}, to_apply=%add", 8).tolist()
        == groups
    )


def test_sizes_of_types():
    text = (
        "ENTRY %main (p: f32[]) -> f32[] {{\n"
        "  %x = {} all-gather(%p), replica_groups=[1,2]<=[2]\n}}\n"
    )
    for array, size in {
        "pred[4]{0}": 4,
        "f8e4m3fn[6]{0}": 6,
        "c64[2]{0}": 16,
        "s4[8]{0}": 8,
        "f32[]": 4,
    }.items():
        (result,) = collectives(text.format(array), mesh(tensor=2))
        assert (result.axes, result.bytes) == (("tensor",), size // 2), array
