"""Names of runs and panels in a report, and where its files are written."""

import json
import os

import pytest
from matplotlib.figure import Figure

from modernbert_jax.errors import UserError
from modernbert_jax.train.report import curves


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs with one name."""
    monkeypatch.chdir(tmp_path)
    paths = ["a/run", "b/run"]
    for path in paths:
        os.makedirs(path)
        rows = [{"step": i, "tokens": i, "loss": 1.0, "stage": "s$_{"} for i in (1, 2)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / path / curves.METRICS).write_text(lines)
    return paths


def test_runs_are_named_by_the_shortest_ends_of_their_paths_that_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for runs, names in {
        ("x/run",): ["run"],
        ("a", "b"): ["a", "b"],
        ("a/run", "b/run"): ["a/run", "b/run"],
        ("a/c/run", "b/c/run", "d"): ["a/c/run", "b/c/run", "d"],
        ("run", "./run", tmp_path / "run"): ["run"],
        (".",): [tmp_path.name],
    }.items():
        named = curves.named(runs)
        assert [*named] == [os.path.normpath(name) for name in names]
        assert len({path.resolve() for path in named.values()}) == len(named)


def test_every_run_has_its_place_and_the_output_its_name(runs, tmp_path):
    paths = curves.report(runs, "v1.2")
    assert [str(path) for path in paths] == ["v1.2.png", "v1.2.html"]
    page = (tmp_path / "v1.2.html").read_text()
    assert page.count("<h2>") == 2 and "<h2>a/run</h2>" in page and "<h2>b/run</h2>" in page


def test_output_is_a_stem_a_file_or_a_folder(runs, tmp_path):
    for output, stem in {
        "x": "x",
        "v1.2": "v1.2",
        "x.png": "x",
        "x.html": "x",
        ".": "report",
        "a/run": "a/run/report",
        "new/x": "new/x",
    }.items():
        paths = curves.output_files(tmp_path / output, runs)
        assert paths == (tmp_path / f"{stem}.png", tmp_path / f"{stem}.html")


def test_outputs_are_checked_first(runs, tmp_path):
    (tmp_path / "taken.html").mkdir()
    (tmp_path / "link.png").symlink_to(f"a/run/{curves.METRICS}")
    for output, key in {
        "taken": "is a folder",
        "link": "is an input",
        "/proc/x": "written",
    }.items():
        with pytest.raises(UserError, match=key):
            curves.report(["nowhere", *runs], output)
    assert not list(tmp_path.glob("taken.png"))


def evaluated(step: int, loss: float, **scores: float) -> dict:
    row = {"step": step, "tokens": 10 * step, "stage": "s", "eval_loss": loss}
    return row | {"score": -loss} | scores


@pytest.fixture
def drawn(monkeypatch):
    """Panels that were drawn, by label."""
    panels = {}
    draw = curves._draw

    def _draw(runs, labels, columns=1):
        panels.update(labels)
        return draw(runs, labels, columns)

    monkeypatch.setattr(curves, "_draw", _draw)
    return panels


def write(run, rows, **config):
    run.mkdir()
    first = {"step": 1, "tokens": 10, "stage": "s", "loss": 2.0}
    lines = "".join(json.dumps(row) + "\n" for row in [first, *rows])
    (run / curves.METRICS).write_text(lines)
    (run / "config.json").write_text(json.dumps(config))


def test_the_score_has_the_name_of_its_metric(tmp_path, drawn):
    write(tmp_path / "a", [evaluated(1, 2.0, score=0.5)], task={"best_metric": "f1_macro"})
    _, page = curves.report([tmp_path / "a"])
    assert drawn["validation f1_macro"] == ("score",) and curves.SCORE not in drawn
    assert "<th>validation f1_macro, best and last</th><td>0.5000, 0.5000</td>" in page.read_text()
    write(tmp_path / "b", [evaluated(1, 2.0, score=0.5)])
    curves.report([tmp_path / "a", tmp_path / "b"])
    assert "validation f1_macro, validation score" in drawn


def test_a_score_that_is_the_loss_again_has_no_panel(tmp_path, drawn):
    write(tmp_path / "run", [evaluated(0, 3.0), evaluated(1, 2.0)])
    curves.report([tmp_path / "run"])
    assert "loss" in drawn and not any("score" in label for label in drawn)


def test_a_single_evaluation_is_a_point():
    row = evaluated(1, 2.0, score=0.5, eval_masked_accuracy=0.3)
    rows = [row | {"loss": 2.5, "masked_accuracy": 0.2}]
    for key, lines in (("score", 1), ("loss", 3), ("masked_accuracy", 3)):
        axis = Figure().subplots()
        curves._curve(axis, "", rows, key, alone=True)
        assert len(axis.lines) == lines
        assert axis.lines[0].get_marker() == axis.lines[-1].get_marker() == "o"
