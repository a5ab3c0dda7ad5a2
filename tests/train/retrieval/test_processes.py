"""Retrieval training in two processes equals that in one, also if one of them is killed."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import retrieval_runs
from processes import Processes, assert_close, curve, kill_and_resume

from modernbert_jax import convert

pytestmark = pytest.mark.slow

RUNS = ("guided", "pairs", "several", "late", "sparse")
"""Also the vectors of a guide, and the collection that is searched during training."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Callable[[str, int], Path]:
    """Trains a run in a number of processes, once, and returns its folder."""
    place = retrieval_runs.write(tmp_path_factory.mktemp("processes"))

    @functools.cache
    def train(run: str, count: int) -> Path:
        folder = place / f"{run}-of-{count}"
        config = retrieval_runs.config(place, run, folder.name)
        with Processes(config, folder, count) as some:
            assert some.wait() == [0] * count, some.output()
        first, *others = (log.read_text() for log in some.logs)
        assert "finished; the model is in" in first
        assert not any("finished" in log for log in others)
        return folder

    return train


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_as_one(trained, run):
    one, two = trained(run, 1), trained(run, 2)
    assert_close(two, one, rtol=1e-3)
    values, others = (
        json.loads((folder / "result.json").read_text())["last"]["metrics"] for folder in (one, two)
    )
    for name, value in values.items():
        assert others[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("run", ["guided", "late"])
def test_killed_processes_end_and_resume_bit_for_bit(trained, run, victim):
    whole = trained(run, 2)
    folder = whole.with_name(f"{run}-killed-{victim}")
    config = retrieval_runs.config(whole.parent, run, folder.name)
    kill_and_resume(config, folder, 7, [victim])
    assert curve(folder) == curve(whole)
    assert convert.verify(folder / "export", whole / "export", tolerance=0.0).equal
