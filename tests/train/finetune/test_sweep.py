"""Sweeps: one compilation for all runs, resumption, and the table of results."""

import dataclasses
import json
from pathlib import Path

import corpus
import jax
import labelled
import numpy as np
import pytest

from modernbert_jax import cli, configs
from modernbert_jax.errors import UserError
from modernbert_jax.train.engine import RunStopped
from modernbert_jax.train.finetune import sweep, sweep_table, training
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.grid import Grid

_EVALUATION = {"step": 3, "metrics": {"loss": 0.5, "accuracy": 0.75}}
RESULT = {"task": "classification", "metric": "accuracy", "best": _EVALUATION, "last": _EVALUATION}
"""A possible result of a run."""

GRID = Grid(learning_rate=(1e-3, 1e-2), weight_decay=(1e-5, 1e-2), epochs=(1.0, 2.0), seed=(1, 2))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> FinetuneConfig:
    """One layer, and data that are learned in a few steps."""
    folder = tmp_path_factory.mktemp("sweep")
    model = labelled.checkpoint(folder / "model", corpus.make_tokenizer(), num_hidden_layers=1)
    train = labelled.write(folder / "train.jsonl", labelled.classification(48, 0))
    validation = labelled.write(folder / "validation.jsonl", labelled.classification(24, 1))
    return dataclasses.replace(
        configs.load("finetune", "classification"),
        model=str(model),
        train=str(train),
        validation=str(validation),
        output=str(folder / "sweep"),
        batch_examples=16,
        attention_dropout=0.1,
    )


class Compiled:
    """Counter of compilations."""

    def __init__(self):
        self.names = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, seconds: float, **_) -> None:
        self.names += event == "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def swept(config):
    """The table of a sweep, and the number of compilations of each run."""
    compiled, counts, train = Compiled(), [], training.train

    def counted(*arguments):
        before = compiled.names
        result = train(*arguments)
        counts.append(compiled.names - before)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "train", counted)
        return sweep.sweep(config, GRID), counts


def test_one_compilation_serves_all_runs(swept):
    table, counts = swept
    assert table["runs"] == len(counts) == 16
    # Twice as many steps, other rates, decays and seeds: no compilation after the first run.
    assert counts[0] > 0 and not any(counts[1:]), counts


def test_runs_have_the_values_of_the_grid(config, swept):
    table, _ = swept
    rows = {tuple(row[key] for key in sweep_table.KEYS): row for row in table["settings"]}
    assert {*rows} == {(r, d, e) for r in (1e-3, 1e-2) for d in (1e-5, 1e-2) for e in (1.0, 2.0)}
    for (rate, decay, epochs), row in rows.items():
        assert row["seeds"] == [1, 2]
        for folder in map(Path, row["runs"]):
            saved = json.loads((folder / "config.json").read_text())
            assert (saved["learning_rate"], saved["weight_decay"]) == (rate, decay)
            lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
            assert max(x["step"] for x in lines) == 3 * epochs
            result = json.loads((folder / "result.json").read_text())
            spread = row["best"]["accuracy"]
            assert result["best"]["metrics"]["accuracy"] in spread["values"]
            assert {*result["last"]["metrics"]} == {*row["last"]} >= {"loss", "accuracy", "f1"}
        assert spread["mean"] == pytest.approx(np.mean(spread["values"]))
        assert spread["deviation"] == pytest.approx(np.std(spread["values"], ddof=1))
    losses = {tuple(row["last"]["loss"]["values"]) for row in rows.values()}
    assert len(losses) == 8 and all(len({*of_setting}) == 2 for of_setting in losses)


def test_a_run_of_a_sweep_equals_a_separate_run(config, swept, tmp_path):
    table, _ = swept
    row = table["settings"][-1]
    run = dataclasses.replace(
        config,
        output=str(tmp_path / "run"),
        seed=2,
        **{key: row[key] for key in sweep_table.KEYS},
    )
    alone = training.finetune(run)
    for when in ("best", "last"):
        for name, spread in row[when].items():
            np.testing.assert_allclose(alone[when]["metrics"][name], spread["values"][1], atol=1e-6)


def test_only_the_best_model_stays_and_no_run_is_repeated(config, swept, monkeypatch):
    table, _ = swept
    folder = Path(config.output)
    assert sorted(folder.glob("runs/*/export")) == [Path(table["best_run"]) / "export"]
    assert not [*folder.glob("runs/*/checkpoints/*")]
    first = table["settings"][0]
    assert table["best_run"] in first["runs"]
    assert first["best"]["accuracy"]["mean"] == max(
        row["best"]["accuracy"]["mean"] for row in table["settings"]
    )
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/metrics.jsonl")}
    (folder / "sweep.json").unlink()
    assert sweep.sweep(config, GRID) == table
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((folder / "sweep.json").read_text()) == table


def test_a_stopped_sweep_resumes(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, output=str(tmp_path / "sweep"))
    grid, calls = Grid(learning_rate=(1e-3, 3e-3)), []

    def stopping(session, run):
        calls.append(run.learning_rate)
        return None if len(calls) == 2 else RESULT

    monkeypatch.setattr(sweep, "train", stopping)
    assert sweep.sweep(config, grid) is None
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["runs"] == 1
    assert not (tmp_path / "sweep" / "sweep.png").exists()
    assert sweep.sweep(config, grid)["runs"] == 2
    assert calls == [1e-3, 3e-3, 1e-3, 3e-3] and (tmp_path / "sweep" / "sweep.png").exists()


def test_a_folder_of_other_runs_is_refused(config, swept):
    changed = dataclasses.replace(config, batch_examples=8)
    with pytest.raises(UserError, match=r"batch_examples: 16 -> 8"):
        sweep.sweep(changed, GRID)


def test_a_diverging_run_does_not_stop_the_others(config, tmp_path, monkeypatch, capfd):
    config = dataclasses.replace(config, output=str(tmp_path / "sweep"))

    def diverging(session, run):
        if run.learning_rate == 1.0:
            raise RunStopped("loss is nan")
        return RESULT

    monkeypatch.setattr(sweep, "train", diverging)
    table = sweep.sweep(config, Grid(learning_rate=(1.0, 1e-3)))
    assert [row["learning_rate"] for row in table["settings"]] == [1e-3, 1.0]
    assert "best" not in table["settings"][1] and "loss is nan" in capfd.readouterr().err
    assert sweep_table.text(table).splitlines()[2].split()[-2:] == ["-", "-"]
    assert len(sweep_table.text(sweep.sweep(config, Grid(learning_rate=(1.0,)))).splitlines()) > 2


def results(values) -> list:
    """Make results of runs from {(rate, seed): (best, last)}."""
    task, pairs = configs.load("finetune", "classification"), []
    for (rate, seed), (best, last) in values.items():
        run = dataclasses.replace(task, learning_rate=rate, seed=seed, output=f"{rate:g}-{seed}")
        result = {"task": "classification", "metric": "accuracy"}
        for when, value in (("best", best), ("last", last)):
            result[when] = {"step": 3, "metrics": {"loss": 0.5, "accuracy": value}}
        pairs.append((run, result))
    return pairs


def test_the_table_has_means_and_deviations(tmp_path):
    runs = results(
        {(1e-5, 1): (0.8, 0.7), (1e-5, 2): (0.6, 0.5), (3e-5, 1): (0.75, 0.75), (3e-5, 2): (0.9, 0)}
    )
    table = sweep_table.summary(runs)
    assert [row["learning_rate"] for row in table["settings"]] == [3e-5, 1e-5]
    assert table["best_run"] == "3e-05-2"
    spread = table["settings"][1]["best"]["accuracy"]
    assert spread == {
        "mean": pytest.approx(0.7),
        "deviation": pytest.approx(0.02**0.5),
        "values": [0.8, 0.6],
    }
    text = [" ".join(line.split()) for line in sweep_table.text(table).splitlines()]
    assert text[0] == "learning rate weight decay epochs seeds accuracy, best last"
    assert text[1] == "3e-05 1e-05 3 2 0.8250 ± 0.1061 0.3750 ± 0.5303"
    assert text[-1] == "accuracy 0.8250 ± 0.1061 0.3750 ± 0.5303"
    assert len({len(line) for line in sweep_table.text(table).splitlines()[:3]}) == 1
    picture = sweep_table.draw(table, tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_one_seed_has_no_deviation_and_a_failed_run_no_mean():
    table = sweep_table.summary(results({(1e-5, 1): (0.8, 0.7), (3e-5, 1): (None, None)}))
    first, failed = (row["best"]["accuracy"] for row in table["settings"])
    assert first == {"mean": 0.8, "deviation": None, "values": [0.8]}
    assert failed == {"mean": None, "deviation": None, "values": [None]}
    assert sweep_table.cell(first) == "0.8000" and sweep_table.cell(failed) == "-"
    assert table["best_run"] == "1e-05-1"


def test_wrong_grids_are_refused_before_anything_is_read(config, capsys, tmp_path):
    with pytest.raises(UserError, match=r"grid.learning_rate holds 0.001 more than once"):
        Grid(learning_rate=(1e-3, 1e-3))
    missing = dataclasses.replace(config, train="/nowhere/at/all.jsonl")
    with pytest.raises(UserError, match=r"learning_rate\.1 is -1\.0"):
        sweep.sweep(missing, Grid(learning_rate=(1e-3, -1.0)))
    alone = dataclasses.replace(config, validation="", validation_split=0.0)
    with pytest.raises(UserError, match="--validation"):
        sweep.sweep(alone, Grid(seed=(1,)))
    with pytest.raises(UserError, match=r"needs a grid, such as --grid\.learning-rate"):
        sweep.sweep(missing, Grid())
    folder = tmp_path / "run"
    (folder / "export").mkdir(parents=True)
    for where in (folder, folder / "export"):
        (where / "config.json").write_text("{}")
        with pytest.raises(UserError, match="holds a run, and not a sweep"):
            sweep.sweep(dataclasses.replace(missing, output=str(folder)), Grid(seed=(1,)))
    assert cli.main(["sweep", "--grid.seed", "1"]) == 2
    assert "sweep needs a CONFIG first" in capsys.readouterr().err
