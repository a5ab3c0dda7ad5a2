"""Progress, warnings and errors of the program during a conversion."""

import hf_directory
import numpy as np
import pytest
import tiny

from modernbert_jax import cli
from modernbert_jax.io import progress


def test_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    source = hf_directory.write(tmp_path / "source")
    assert cli.main(["convert", str(source), str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    lines = shown.err.strip().splitlines()
    assert lines[-1] == "converting  0.00/0.00 GB" and len(lines) > 10
    assert shown.out.startswith(f"{source} (hf) -> ") and len(shown.out.splitlines()) == 1


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    with progress.transfer("converting") as advance:
        advance(1, 4)
        advance(4, 4)
    assert "converting" in capsys.readouterr().err


def test_warnings_are_lines(tmp_path, capsys):
    config = tiny.config()
    weights = hf_directory.weights(hf_directory.shapes(config))
    weights["head.norm.weight"][0] = np.inf
    source = hf_directory.write(tmp_path / "source", weights, config)
    assert cli.main(["convert", str(source), str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"warning: {source}: NaN or infinity in head.norm.weight"


@pytest.mark.parametrize("target", ["out", "out.pt"])
def test_errors_are_one_line_and_leave_nothing(tmp_path, capsys, target):
    source = hf_directory.write(tmp_path / "source")
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert cli.main(["convert", str(source), str(tmp_path / target)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors: truncated" in line
    assert [p.name for p in tmp_path.iterdir()] == ["source"]
