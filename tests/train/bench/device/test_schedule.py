"""Parts that go wrong lose nothing of themselves that was known, and nothing of the others."""

import device_parts
import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.train.bench.device import machine, processes, registry, schedule

BAD = {
    device_parts.raising: ("failed", "ValueError: no such luck"),
    device_parts.crashing: ("failed", "SIGKILL"),
    device_parts.hanging: ("skipped", "stopped after"),
    device_parts.without_torch: ("missing", "needs torch"),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "LEAST", 4.0)

    def run(parts, seconds=60.0):
        children = processes.Processes(tmp_path)
        budget = schedule.Budget(seconds)
        outcomes = schedule.run(parts, machine.UNKNOWN, children, budget)
        return {part.name: results for part, results in outcomes}

    return run


def test_what_goes_wrong_leaves_the_rest_intact(run, tmp_path):
    parts = [device_parts.part(f) for f in (*BAD, device_parts.good)]
    results = run(parts)
    for function, (status, note) in BAD.items():
        *before, last = results[function.__name__]
        assert (last.status, last.part) == (status, function.__name__)
        assert note in last.note
        if status != "missing":
            assert [r.name for r in before] == ["first"]
            assert before[0].numbers["time"].value == 1.0
    assert [r.status for r in results["good"]] == ["ok", "ok"]
    assert "no such luck" in results["raising"][-1].trace
    assert "--- crashing" in (tmp_path / "log.txt").read_text()


def test_a_case_that_goes_wrong_does_not_end_its_part(run):
    functions = (device_parts.unsupported, device_parts.out_of_memory)
    results = run([device_parts.part(f) for f in functions])
    assert [r.status for r in results["unsupported"]] == ["unsupported", "ok"]
    assert [r.status for r in results["out_of_memory"]] == ["failed", "ok"]
    assert results["out_of_memory"][0].note.startswith("out of memory: ")


def test_a_part_is_not_started_when_its_time_is_gone(run):
    parts = [
        device_parts.part(device_parts.good, name=n, seconds=s) for n, s in (("a", 1), ("b", 900))
    ]
    results = run(parts, seconds=30.0)
    assert [r.status for r in results["a"]] == ["ok", "ok"]
    (skipped,) = results["b"]
    assert skipped.status == "skipped"
    assert "it takes about 900 s" in skipped.note


def test_a_background_part_runs_beside_the_others(run):
    background = device_parts.part(device_parts.good, name="beside", background=True)
    results = run([background, device_parts.part(device_parts.good)])
    assert list(results) == ["good", "beside"]
    assert [r.status for r in results["beside"]] == ["ok", "ok"]


def test_parts_are_chosen_by_name_and_group():
    parts = registry.parts()
    assert [p.name for p in schedule.choose(parts, ["ceilings"])] == ["ceilings"]
    assert len(schedule.choose(parts, ["training"])) == 4
    assert schedule.choose(parts, []) == parts
    with pytest.raises(UserError, match=r"no part 'kernel'; known: .*kernels"):
        schedule.choose(parts, ["kernel"])


def test_the_most_telling_parts_come_first_and_fit_the_default_budget():
    parts = [p for p in registry.parts() if not p.background]
    assert [p.order for p in parts] == sorted(p.order for p in parts)
    half = {p.group for p in parts[:6]}
    assert {"ceilings", "attention", "kernels", "training", "encoding"} <= half
    assert len({p.name for p in parts}) == len(parts)


def test_a_part_registers_itself_once(monkeypatch):
    monkeypatch.setattr(registry, "_PARTS", {})
    registry.register("new", group="scoring", order=5)(device_parts.good)
    assert registry._PARTS["new"].function is device_parts.good
    with pytest.raises(ValueError, match="twice"):
        registry.register("new", group="scoring")(device_parts.good)
