"""The folder of a run: one writer at a time, and whose it is."""

import os

import pytest

from modernbert_jax import UserError
from modernbert_jax.io import lock
from modernbert_jax.train import engine
from modernbert_jax.train.engine.run_folder import LOCK, RunFolder


def folder(path, **config) -> RunFolder:
    return RunFolder(path, {"seed": 1, **config}, ("output",))


def test_one_run_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    first, second = folder(tmp_path / "run"), folder(tmp_path / "run")
    with first.held():
        first.claim()
        match = rf"run: process {os.getpid()} on .* is writing here"
        with pytest.raises(UserError, match=match), second.held():
            raise AssertionError
        assert (tmp_path / "run" / LOCK).exists()
    with second.held():
        second.claim()
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), folder(tmp_path / "run").held():
        raise ZeroDivisionError
    (tmp_path / "empty").mkdir()
    with folder(tmp_path / "empty").held():
        pass
    assert os.listdir(tmp_path) == ["empty"]


def test_one_that_has_become_another_run_is_refused(tmp_path):
    """It was checked before the other run had begun."""
    late = folder(tmp_path / "run", seed=2)
    late.check()
    with folder(tmp_path / "run").held():
        folder(tmp_path / "run").claim()
    with pytest.raises(UserError, match=r"another configuration \(seed: 1 -> 2\)"), late.held():
        raise AssertionError


def test_what_a_killed_start_leaves_blocks_no_start(tmp_path):
    run = folder(tmp_path / "run")
    run.path.mkdir()
    for name in (LOCK, ".config.json.host-77.tmp", "plan.png"):
        (run.path / name).write_text("x")
    with run.held():
        run.claim()
    (run.path / "config.json").unlink()
    (run.path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and not a run"):
        run.check()


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match="file/run: cannot be written"),
        engine.only_writer(tmp_path / "file" / "run"),
    ):
        raise AssertionError


def with_inputs(path, place="data", /, **inputs) -> RunFolder:
    config = {"seed": 1, "data": place, "test": "", "init_from": "base"}
    return RunFolder(path, config, ("output",), inputs=inputs)


def begun(path, **inputs) -> RunFolder:
    run = with_inputs(path, **inputs)
    run.claim()
    return run


def test_inputs_are_what_they_are_wherever_they_are(tmp_path):
    run = tmp_path / "run"
    begun(run, data="rows", tokenizer="words")
    with_inputs(run, data="rows", tokenizer="words").check()
    moved = with_inputs(run, "/mnt/elsewhere/data", data="rows", tokenizer="words")
    moved.check()
    moved.claim()
    with pytest.raises(UserError, match=r"began with other content of data \(data\), tokenizer;"):
        with_inputs(run, data="other rows", tokenizer="letters").check()
    with pytest.raises(UserError, match=r"another configuration \(data: .* -> ''\)"):
        with_inputs(run, "", data="rows").check()


def test_identities_are_compared_in_what_both_have(tmp_path):
    """A later version may describe an architecture with more keys."""
    begun(tmp_path / "run", init_from={"weights": "w", "architecture": {"width": 1, "old": 2}})
    later = {"weights": "w", "architecture": {"width": 1, "new": 3}}
    with_inputs(tmp_path / "run", init_from=later).check()
    with_inputs(tmp_path / "run").check()  # one that cannot be read any more
    for other in ({**later, "weights": "v"}, {**later, "architecture": {"width": 2}}):
        with pytest.raises(UserError, match=r"other content of init_from \(base\)"):
            with_inputs(tmp_path / "run", init_from=other).check()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_run_without_fingerprints_resumes_and_gets_them(tmp_path, monkeypatch, content):
    """Runs of earlier versions, and those whose file is damaged: their places are compared."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    begun(run)
    if content is not None:
        (run / "inputs.json").write_text(content)
    for spelling in ("./data", str(tmp_path / "data")):
        with_inputs(run, spelling, data="rows").check()
    with pytest.raises(UserError, match=r"another configuration \(data: 'data' -> 'other'\)"):
        with_inputs(run, "other", data="rows").check()
    begun(run, data="rows")
    with pytest.raises(UserError, match="other content of data"):
        with_inputs(run, data="other rows").check()
