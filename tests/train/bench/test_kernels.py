"""The benchmark of attention at a tiny size, and the tuning file that it writes."""

import json

import numpy as np
import pytest

from modernbert_jax import cli
from modernbert_jax.attention import Call, choose, tuning
from modernbert_jax.train.bench import kernels
from modernbert_jax.train.bench.kernels import Case, KernelShape, Time


@pytest.mark.slow
def test_the_command_writes_a_tuning_file_that_the_choice_reads(tmp_path, monkeypatch, capsys):
    path = tmp_path / "tuning.json"
    small = ["--length", "128", "--tokens", "128", "--heads", "1", "--head-dim", "32"]
    assert cli.main(["bench", "kernels", *small, "--repeats", "1", "--output", str(path)]) == 0
    shown = capsys.readouterr().out
    for word in ("sliding", "full", "packed", "one document", "xla_range", "jax.nn xla"):
        assert word in shown
    table = json.loads(path.read_text())
    monkeypatch.setenv(tuning.VARIABLE, str(path))
    choose.cache_clear()
    [(device, entries)] = table.items()
    for name, entry in entries.items():
        window = 128 if name.startswith("sliding") else None
        call = Call(
            platform="cpu",
            device_kind=device,
            dtype="float32",
            length=128,
            heads=1,
            head_dim=32,
            window=window,
            symmetric=True,
        )
        assert choose("auto", call).name == entry["implementation"]
        assert choose("auto", call).why == "tuned"
    choose.cache_clear()


def test_the_fastest_over_all_cases_is_recommended():
    shape = KernelShape(lengths=(64, 128), tokens=128, heads=1, head_dim=64, dtype="bfloat16")
    ids = np.ones((1, 64), np.int32)
    times = [
        Time(Case(kind, length, "packed", ids), name, options, 1.0, both)
        for kind in ("sliding", "full")
        for name, options, both_by_length in (
            ("xla_range", (), {64: 2.0, 128: 2.0}),
            ("pallas_triton", (("fwd_q", 128),), {64: 1.0, 128: 3.0}),
            ("dense", (), {64: 0.1}),
            ("jax.nn cudnn", (), {64: 0.1, 128: 0.1}),
        )
        for length, both in both_by_length.items()
    ]
    [entries] = kernels.recommend(times, shape).values()
    best = {"implementation": "pallas_triton", "pallas_triton": {"fwd_q": 128}}
    assert entries == {"sliding 64 bfloat16": best, "full 64 bfloat16": best}


@pytest.mark.parametrize("length", [64, 1024])
def test_packed_rows_are_nearly_full(length):
    ids = kernels.packed_rows(4, length)
    assert ids.shape == (4, length)
    assert (ids > 0).mean() > 0.9
    assert (np.diff(ids, axis=1)[ids[:, 1:] > 0] >= 0).all()


def test_a_sweep_keeps_the_best_of_each_group_and_survives_failures():
    shape = KernelShape(lengths=(64,), tokens=64, heads=1, head_dim=64, dtype="float32")
    case = next(kernels.cases(shape, "full"))
    seen, lines = [], []

    def time_with(options):
        seen.append(dict(options))
        if dict(options).get("a") == 3:
            raise RuntimeError("out of shared memory\nmore")
        return Time(case, "name", options, 1.0, sum(dict(options).values()))

    groups = ({"a": 3}, {"a": 2}, {"a": 1}), ({"b": 5}, {"b": 4})
    best = kernels.best_options(groups, {}, time_with, lines.append)
    assert best == (("a", 1), ("b", 4))
    assert lines == ["{'a': 3}: out of shared memory"]
    assert {"a": 1, "b": 5} in seen
