"""Training steps to measure, and their memory beside what was predicted."""

import pytest

from modernbert_jax.train.bench.device import cases, workloads
from modernbert_jax.train.bench.device.parts import memory
from modernbert_jax.train.bench.device.results import Number, Result
from modernbert_jax.train.bench.device.scale import Scale

H100 = Scale(platform="gpu", device_kind="NVIDIA H100 80GB HBM3", memory=78 * 10**9)
V5E = Scale(platform="tpu", device_kind="TPU v5 lite", memory=16 * 10**9)
TINY = Scale(platform="cpu", device_kind="cpu")


@pytest.mark.parametrize("scale", [H100, V5E])
def test_base_and_large_in_short_and_long_rows(scale):
    names = [w.name for w in workloads.workloads(scale)]
    assert names == ["base 1024", "base 8192", "large 1024", "large 8192"]
    for work in workloads.workloads(scale):
        (stage,) = work.config.stages
        assert stage.rows == work.rows * work.microbatches
        assert (work.remat == "none") == (scale is H100)


def test_flops_count_documents_not_rows():
    work = workloads.workload("base 1024", H100)
    whole, halves = ([[1024]] * 4, [[512, 512]] * 4)
    assert work.flops(whole) > work.flops(halves)
    per_token = work.config.model.flops_per_token(1024, 0.3)
    assert work.flops(whole) == pytest.approx(3 * per_token * 4096)


def test_predictions_stand_beside_what_was_measured():
    numbers = {"peak": Number(50.0, "GB"), "speed": Number(1.0, "tokens/s")}
    measured = Result(name="base 1024", group="training", numbers=numbers)
    other = Result(name="large 1024", group="training", status="skipped")
    predicted = Result(name="base 1024", group="memory", numbers={"predicted": Number(40.0, "GB")})
    merged = workloads.with_predictions([measured, other, predicted])
    assert merged[0].numbers["predicted"] == Number(40.0, "GB")
    assert merged[0].numbers["of predicted"] == Number(125.0, "%")
    assert merged[0].note == "peak memory is 25 % above the prediction"
    assert merged[1:] == [other, predicted]
    near = Result(name="base 1024", group="memory", numbers={"predicted": Number(48.0, "GB")})
    assert workloads.with_predictions([measured, near])[0].note == ""


def test_rows_hold_documents_of_random_tokens():
    (work,) = workloads.workloads(TINY)
    rows = workloads.batch(work, cases.lognormal(work.length, 4))
    assert rows.token_ids.shape == (4, work.length)
    assert rows.token_ids.max() < work.model.vocab_size
    assert (rows.positions[:, 0] == 0).all()


def test_every_known_device_has_a_topology_that_plan_knows():
    from modernbert_jax.train.plan.topology import GPUS, TPUS

    families = {name.partition(":")[0] for name in memory.TOPOLOGIES.values()}
    assert families == {*GPUS, *TPUS}
