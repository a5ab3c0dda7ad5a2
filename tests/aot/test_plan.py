"""Plans of a tiny run by the real compilers, on several devices."""

import dataclasses

import pytest

from modernbert_jax import UserError
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.plan.facts import plan
from modernbert_jax.train.plan.program import Variant, compile_step
from modernbert_jax.train.plan.topology import absent_devices, topology
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage


def config(mesh: MeshShape) -> PretrainConfig:
    """Two heads of 64; 16 rows in two microbatches."""
    model = ModernBertConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=7,
        num_attention_heads=2,
        pad_token_id=0,
    )
    stage = Stage(
        name="only", tokens=10**6, length=1024, rows=16, microbatch_rows=8, peak_learning_rate=1e-3
    )
    runtime = Runtime(dtype="bfloat16", remat="full")
    return PretrainConfig(model=model, stages=(stage,), runtime=runtime, mesh=mesh)


@pytest.mark.parametrize(
    ("machine", "devices", "kernel"),
    [("v5e:2x2", 4, "pallas_tpu"), ("h100:8", 8, "pallas_triton")],
)
def test_a_plan(machine, devices, kernel):
    run = config(MeshShape(data=2, fsdp=-1))
    with absent_devices():
        facts = plan(run, topology(machine), which="configured")
    (stage,) = facts["stages"]
    choice = stage["configured"]
    assert facts["fits"] and facts["devices"] == devices
    assert stage["mesh"] == {"data": 2, "fsdp": devices // 2, "context": 1, "tensor": 1}
    assert {a["name"] for a in choice["attention"].values()} == {kernel}
    # Matrices are in pieces, norms are whole.
    whole = 4 * run.model.parameter_count()
    assert whole / (devices / 2) < choice["memory"]["parameters"] < 1.5 * whole / (devices / 2)
    assert choice["memory"]["optimizer"] // choice["memory"]["parameters"] == 2
    # The compiler finds what was counted, within a factor: models this small are all overhead.
    assert 1 / 3 < choice["peak_bytes"] / choice["guessed_bytes"] < 3
    sent = {(c["kind"], tuple(c["axes"])) for c in choice["collectives"]}
    assert ("all-gather", ("fsdp",)) in sent
    assert any(kind == "all-reduce" and "data" in axes for kind, axes in sent), sent
    assert "all-to-all" not in {kind for kind, _ in sent}, sent
    # Each of the other six layers' gathers runs once a group and microbatch, at least forward.
    gathers = next(c for c in choice["collectives"] if c["kind"] == "all-gather")
    assert gathers["times"] >= 2 * 2 * 3 and gathers["counted"]
    assert choice["warnings"] == []


def test_what_a_tpu_compiler_refuses():
    run = config(MeshShape())
    model = dataclasses.replace(run.model, num_hidden_layers=301)
    run = dataclasses.replace(run, model=model)
    stage = dataclasses.replace(run.stages[0], rows=512)
    with absent_devices():
        there = topology("v5e:2x2")
        mesh = run.mesh.make(there.devices)
        compiled = compile_step(run, stage, Variant("none", 512), mesh)
    assert compiled.refused and compiled.peak > there.memory == int(15.75 * 2**30)


def test_slices_that_are_not():
    with absent_devices(), pytest.raises(UserError, match="no such machine"):
        topology("v5e:3x5")
