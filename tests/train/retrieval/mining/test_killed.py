"""Mining in a process that is killed, again and again, until it ends."""

import json

import killed
import models
import pytest

CONSTANTS = {"mining.encoded.TEXTS": 16, "mining.stages.SEARCHED": 8, "mining.stages.RANKED": 4}
"""Small parts, so that there are several."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "colbert", "sparse"])
def test_a_killed_run_is_resumed_at_every_file_that_it_writes(kind, tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    models.write(kind, tmp_path / "model")
    write("data.jsonl", [{"query": f"a b {i}", "positive": f"c {i} d"} for i in range(20)])
    write("corpus.jsonl", [{"text": f"the fox {i} and {i % 7} dogs"} for i in range(60)])
    models.write("reranker", tmp_path / "reranker")

    def words(output):
        command = ["mine", "--output", tmp_path / output, "--sampling", "random", "--range-max", 9]
        for name in ("model", "data.jsonl", "corpus.jsonl"):
            command += [f"--{name.partition('.')[0]}", tmp_path / name]
        return [*command, "--cross-encoder", tmp_path / "reranker"]

    whole = killed.run(words("whole.jsonl"), CONSTANTS)
    assert whole.returncode == 0, whole.stderr
    assert killed.until_done(words("again.jsonl"), CONSTANTS, steps=(3, 5)) > 4
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    inputs = {"model", "reranker", "data.jsonl", "corpus.jsonl"}
    names = {"whole.jsonl", "again.jsonl"}
    assert left == inputs | names | {f"{name}.cache" for name in names}
