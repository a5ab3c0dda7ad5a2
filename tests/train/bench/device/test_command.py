"""The whole command on a CPU, at sizes that mean nothing."""

import json

import device_parts
import device_runs
import pytest

from modernbert_jax import cli
from modernbert_jax.train.bench.device import __main__ as program
from modernbert_jax.train.bench.device import command, page, registry, table
from modernbert_jax.train.bench.device.results import SCHEMA, Result


@pytest.mark.slow
def test_the_whole_command(tmp_path, capfd):
    output = tmp_path / "run.json"
    assert cli.main(["bench", "device", "--output", str(output), "--minutes", "30"]) == 0
    run = json.loads(output.read_text())
    assert run["schema"] == SCHEMA
    assert run["device"].startswith("CPU, ")
    assert {"jax", "jaxlib"} <= set(run["versions"])
    statuses = {r["name"]: r["status"] for r in run["results"]}
    assert set(statuses.values()) <= {"ok", "unsupported", "missing"}, statuses
    groups = {r["group"] for r in run["results"] if r["status"] == "ok"}
    assert groups == set(registry.GROUPS)
    (step,) = (Result.from_json(r) for r in run["results"] if r["group"] == "training")
    assert step.numbers["predicted"] == step.numbers["compiler's"]
    assert step.note == "the device tells no peak memory"
    text = output.with_suffix(".md").read_text()
    for group, heading in registry.GROUPS.items():
        assert (f"## {heading}" in text) == (group not in table.HIDDEN)
    assert text in capfd.readouterr().out
    (tuned,) = json.loads(output.with_suffix(".tuning.json").read_text()).values()
    assert {"full 64 float32", "sliding 64 float32"} == set(tuned)
    assert "--- attention" in output.with_suffix(".log").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "minutes is 0.0; it must be more than 0"),
        (["--output", "run.txt"], "output is run.txt; it must end in .json"),
        (["--output", "/proc/nowhere/run.json"], "nowhere/run.json: cannot be written"),
        (["--parts", "kernel"], "no part 'kernel'"),
        (["--record", "nowhere.json"], "nowhere.json: no such file"),
    ],
)
def test_wrong_input_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for main, before in ((cli.main, ["bench", "device"]), (program.main, [])):
        assert main([*before, *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_run_from_elsewhere_is_recorded(tmp_path, monkeypatch, capsys):
    checkout = tmp_path / "checkout"
    (checkout / "docs" / "results").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    (checkout / "README.md").write_text(f"# Title\n\n{page.BEGIN}\n{page.END}\nmore\n")
    monkeypatch.setattr(command, "ROOT", checkout)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(device_runs.run()))
    for _ in range(2):  # again changes nothing
        assert cli.main(["bench", "device", "--record", str(file)]) == 0
        assert "chip-9000-pcie.json: added" in capsys.readouterr().out
        (recorded,) = (checkout / page.FOLDER).iterdir()
        assert len(json.loads(recorded.read_text())) == 1
        assert "| Attention times | 1 ok |" in (checkout / page.PAGE).read_text()
        readme = (checkout / "README.md").read_text()
        assert readme.startswith("# Title\n") and readme.endswith("\nmore\n")
        assert "Chip 9000" in readme


def test_a_failed_part_is_an_exit_code(tmp_path, monkeypatch, capfd):
    parts = [device_parts.part(f) for f in (device_parts.raising, device_parts.good)]
    monkeypatch.setattr(registry, "parts", lambda: parts)
    output = tmp_path / "run.json"
    assert program.main(["--output", str(output)]) == 1
    assert "failed: raising" in capfd.readouterr().err
    names = [r["name"] for r in json.loads(output.read_text())["results"]]
    assert names == ["first", "raising", "first", "second"]
