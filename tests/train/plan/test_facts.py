"""Plans on a machine of one CPU: facts, verdicts, JSON and printed tables."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
import tiny

from modernbert_jax import UserError, cli
from modernbert_jax.config import Runtime
from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.plan import facts as planner
from modernbert_jax.train.plan import program, show, tables, topology
from modernbert_jax.train.plan.collectives import Collective
from modernbert_jax.train.plan.program import Compiled, Memory, Variant
from modernbert_jax.train.plan.topology import Topology
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage


def config(**changes) -> PretrainConfig:
    stage = Stage(
        name="first", tokens=4096, length=64, rows=8, microbatch_rows=2, peak_learning_rate=1e-3
    )
    later = dataclasses.replace(stage, name="later", decay_tokens=2048)
    values = {"model": tiny.config(), "stages": (stage, later), "runtime": Runtime(remat="dots")}
    return PretrainConfig(**values | changes)


def machine(memory: int = 10**9) -> Topology:
    return Topology("cpu:1", "cpu", tuple(jax.devices()[:1]), memory, "a test")


@pytest.fixture
def linear(monkeypatch):
    """Replace compiling by a formula: 10,000 bytes per row, and twice that without remat."""
    calls, a_row = [], {"none": 20_000, "dots": 10_000, "full": 5_000}

    def compile_step(config, stage, choice, mesh):
        calls.append((stage.name, choice))
        peak = 100_000 + choice.rows * a_row[choice.remat]
        memory = Memory(30_000, 60_000, 1_000, peak - 91_000, 0, peak)
        sent = Collective("all-reduce", ("data",), 3, 5_000_000, counted=False)
        return Compiled(choice, peak, "", memory, (sent,), ("Involuntary full ...",), 1.0)

    monkeypatch.setattr(planner, "compile_step", compile_step)
    monkeypatch.setattr(planner.Activations, "of_a_row", lambda self, remat: a_row[remat])
    monkeypatch.setattr(planner, "state_bytes", lambda config, mesh: (30_000, 91_000))
    return calls


def test_the_real_step_compiled():
    """The step compiled for the CPU, where nothing is sent."""
    outcome = config()
    mesh = MeshShape().make(jax.devices()[:1])
    result = program.compile_step(outcome, outcome.stages[0], Variant("dots", 2), mesh)
    parameters = 4 * outcome.model.parameter_count()
    assert result.memory.parameters == parameters and result.memory.optimizer // parameters == 2
    assert result.peak == result.memory.peak > 3 * parameters
    assert result.memory.batch >= 3 * 8 * 64 * 4 and result.memory.temporaries > parameters
    assert not result.refused and result.collectives == ()
    attention = program.attention_of(outcome, outcome.stages[0], 2, mesh)
    assert attention["full_attention"] == {"name": "xla_range", "why": "default on cpu"}


def test_what_the_compiler_refuses_is_a_number():
    error = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.50G of 15.75G hbm."
    assert program.bytes_refused(error) == int(21.5 * 2**30)
    error = "RESOURCE_EXHAUSTED: the total memory required (1.00T) exceeds available HBM (15.75G)."
    assert program.bytes_refused(error) == 2**40
    assert program.bytes_refused("RESOURCE_EXHAUSTED: no number") == 0
    assert program.bytes_refused("INTERNAL: something else") is None


def test_a_lighter_rematerialisation_keeps_more():
    outcome = config(model=tiny.config(num_hidden_layers=7))
    kept = planner.Activations(outcome, outcome.stages[0], MeshShape().make(jax.devices()[:1]))
    none, dots, full = (kept.of_a_row(remat) for remat in ("none", "dots", "full"))
    assert none > dots > full > 64 * outcome.model.hidden_size * 4


def test_configured_and_suggested(linear):
    result = planner.plan(config(), machine(400_000), mfu=0.5)
    first, later = result["stages"]
    assert first["configured"]["microbatch_rows"] == 2 and first["configured"]["remat"] == "dots"
    assert first["suggested"]["microbatch_rows"] == 8 and first["suggested"]["remat"] == "none"
    assert first["flags"] == "--runtime.remat none --stages.0.microbatch-rows 8"
    assert later["flags"].endswith("--stages.1.microbatch-rows 8")
    assert result["fits"] and first["configured"]["memory"]["peak"] == 120_000
    assert first["steps"] == 8 and first["step_seconds"] is None  # unknown for a CPU
    # Stages that differ in their schedules alone share a program.
    assert {name for name, _ in linear} == {"first"}
    assert json.loads(json.dumps(result)) == result


def test_what_does_not_fit(linear, capsys):
    result = planner.plan(config(), machine(108_000), stages=("later",))
    (stage,) = result["stages"]
    assert not result["fits"] and not stage["configured"]["fits"]
    assert stage["suggested"]["remat"] == "full" and stage["suggested"]["microbatch_rows"] == 1
    show.show(result)
    message = capsys.readouterr().out
    assert "later as configured does not fit" in message and "--runtime.remat full" in message
    assert "all-reduce over data" in message and "at least 3 x, 0.005 GB" in message
    assert "Involuntary" in message
    result = planner.plan(config(), machine(1000))
    show.show(result)
    assert result["stages"][0]["suggested"] is None
    assert "first does not fit at all" in capsys.readouterr().out


def test_times_follow_from_the_peak_and_the_utilisation(linear, monkeypatch):
    monkeypatch.setattr(planner, "peak_of", lambda kind: 1e12)
    outcome = config()
    (stage,) = planner.plan(outcome, machine(), stages=("first",), mfu=0.25)["stages"]
    flops = 3 * outcome.model.flops_per_token(64, 0.3) * 8 * 64
    assert stage["flops_per_step"] == pytest.approx(flops)
    assert stage["step_seconds"] == pytest.approx(flops / 0.25e12)
    assert stage["hours"] == pytest.approx(8 * flops / 0.25e12 / 3600)


def test_only_one_of_both(linear):
    result = planner.plan(config(), machine(), which="suggested")
    assert result["stages"][0]["configured"] is None and result["fits"]
    result = planner.plan(config(), machine(), which="configured")
    assert result["stages"][0]["suggested"] is None and result["fits"]
    assert [choice for _, choice in linear][-1] == Variant("dots", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ("frist",)}, "no stage is named 'frist'; did you mean 'first'"),
        ({"mfu": 40}, "mfu is 40"),
    ],
)
def test_what_makes_no_sense(linear, options, message):
    with pytest.raises(UserError, match=message):
        planner.plan(config(), machine(), **options)
    assert not linear


def test_rows_that_cannot_be_divided(linear):
    outcome = config(mesh=MeshShape(data=1, fsdp=1, context=1, tensor=3))
    with pytest.raises(UserError, match="does not fit 1 devices"):
        planner.plan(outcome, machine())
    assert not linear


def test_the_command(linear, monkeypatch, capsys):
    monkeypatch.setattr(topology, "topology", lambda name: machine())
    command = ["plan", "nano", "--topology", "cpu:1", "--stage", "pretrain"]
    assert cli.main([*command, "--json"]) == 0
    message = capsys.readouterr()
    result = json.loads(message.out)
    assert [s["name"] for s in result["stages"]] == ["pretrain"] and result["mfu"] == 0.4
    assert "compiling ..." in message.err
    monkeypatch.setattr(topology, "topology", lambda name: machine(1000))
    assert cli.main([*command, "--only", "configured"]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert cli.main(["plan", "nano"]) == 2
    assert "--topology, such as v5e:16x16" in capsys.readouterr().err


def test_the_tables_of_the_documentation(linear, monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "topology", lambda name: machine())
    monkeypatch.setattr(tables, "TOPOLOGIES", ("cpu:1",))
    monkeypatch.setattr(tables, "CONFIGS", ("nano",))
    monkeypatch.setattr(planner, "peak_of", lambda kind: 1e12)
    options = ["--json", str(tmp_path / "plans.json"), "--markdown", str(tmp_path / "plans.md")]
    tables.main(options)
    page, calls = (tmp_path / "plans.md").read_text(), len(linear)
    stages = [f["stage"] for f in json.loads((tmp_path / "plans.json").read_text())]
    assert "## cpu:1" in page and all(f"| nano | {stage} | 1 device |" in page for stage in stages)
    tables.main(options)
    assert len(linear) == calls  # nothing is compiled twice


def test_the_pages_show_the_plans_that_were_compiled():
    top = Path(__file__).parents[3]
    result = json.loads((top / "tests" / "fixtures" / "plans.json").read_text())
    guides = top / "docs" / "guides"
    assert "\n".join(tables.summary(result)) in (guides / "recipe.md").read_text()
    assert "\n".join(tables.costs(result)) in (guides / "tpu-pod.md").read_text()
    assert (top / "docs" / "results" / "plans.md").read_text() == tables.page(result)
