"""Retrieval training in two processes equals that in one."""

import json

import pytest
import retrieval_runs
from processes import Processes, assert_close

pytestmark = pytest.mark.slow


def test_two_processes_train_as_one(tmp_path):
    """Also the guide's vectors, and the collection that is searched during training."""
    retrieval_runs.write(tmp_path)
    results = []
    for count in (1, 2):
        folder = tmp_path / f"of-{count}"
        config = retrieval_runs.config(tmp_path, "guided", folder.name)
        with Processes(config, folder, count) as some:
            assert some.wait() == [0] * count, some.output()
        first, *others = (log.read_text() for log in some.logs)
        assert "finished; the model is in" in first
        assert not any("finished" in log for log in others)
        results.append(json.loads((folder / "result.json").read_text())["last"]["metrics"])
    assert_close(tmp_path / "of-2", tmp_path / "of-1", rtol=1e-3)
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
