"""The attention that a run found right and fastest becomes the automatic one."""

import json

import device_runs
import pytest

from modernbert_jax.attention import Call, choose, tuning
from modernbert_jax.train.bench.device import history, recommendation
from modernbert_jax.train.bench.device.results import Number, Result

FACTS = device_runs.FACTS | {"device": "NVIDIA H100 80GB HBM3"}


def result(group, kind, name, both=0.0, status="ok", tokens="8,192"):
    labels = {"layer": kind, "tokens": tokens, "type": "bfloat16", "implementation": name}
    if group == "kernels":
        labels["documents"] = "documents"
    return Result(
        name=f"{kind} {tokens} {name}",
        group=group,
        status=status,
        labels=labels,
        numbers={"both": Number(both, "ms")} if both else {},
    )


def run(*more, platform="gpu"):
    """Hopper's kernels are faster in full layers, and wrong in sliding ones."""
    results = [
        *(result("attention", kind, "pallas_triton") for kind in ("full", "sliding")),
        result("attention", "full", "pallas_hopper"),
        result("attention", "sliding", "pallas_hopper", status="failed"),
        *(result("kernels", kind, "pallas_triton", 2.0) for kind in ("full", "sliding")),
        *(result("kernels", kind, "pallas_hopper", 1.0) for kind in ("full", "sliding")),
        result("kernels", "full", "jax.nn cudnn", 0.5),
        *more,
    ]
    return history.record(FACTS | {"platform": platform}, results, 1.0, 8.0)


def test_what_is_right_and_fastest():
    assert recommendation.implementations(run()) == {
        "full 64 bfloat16": "pallas_hopper",
        "sliding 64 bfloat16": "pallas_triton",
    }
    assert recommendation.implementations(run(platform="cpu")) == {}


@pytest.mark.parametrize(
    "more",
    [
        result("attention", "full", "pallas_hopper", status="failed", tokens="1,024"),
        result("kernels", "full", "pallas_triton", 1.0, tokens="1,024"),
        result("kernels", "full", "pallas_hopper", 9.0, tokens="1,024"),
    ],
    ids=["wrong elsewhere", "not timed everywhere", "slower in the mean"],
)
def test_one_case_is_not_enough(more):
    others = result("kernels", "full", "pallas_triton", 1.0, tokens="1,024")
    assert recommendation.implementations(run(more, others))["full 64 bfloat16"] == "pallas_triton"


def test_the_choice_follows_and_keeps_its_tiles(tmp_path, monkeypatch):
    path = tmp_path / "tuning.json"
    tiles = {"pallas_hopper": {"fwd_warpgroups": 2}}
    path.write_text(json.dumps({"NVIDIA H100": {"full 64 bfloat16": tiles}}))
    for _ in range(2):  # again changes nothing
        recommendation.adopt(path, run())
        (entries,) = json.loads(path.read_text()).values()
        assert entries["full 64 bfloat16"] == {"implementation": "pallas_hopper"} | tiles
    monkeypatch.setenv(tuning.VARIABLE, str(path))
    choose.cache_clear()
    call = Call(
        platform="gpu",
        device_kind=FACTS["device"],
        dtype="bfloat16",
        length=1024,
        heads=12,
        head_dim=64,
        window=None,
        symmetric=True,
    )
    choice = choose("auto", call)
    choose.cache_clear()
    assert (choice.name, choice.why) == ("pallas_hopper", "tuned")
    assert dict(choice.options)["fwd_warpgroups"] == 2


def test_a_file_is_made_where_there_is_none(tmp_path):
    path = tmp_path / "tuning.json"
    recommendation.adopt(path, run(platform="cpu"))
    assert not path.exists()
    recommendation.adopt(path, run())
    assert set(json.loads(path.read_text())) == {FACTS["device"]}
