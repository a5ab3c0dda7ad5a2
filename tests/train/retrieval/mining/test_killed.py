"""Mining in a process that is killed, again and again, until it ends."""

import json
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from modernbert_jax.io import files
from modernbert_jax.scoring import TopK
from modernbert_jax.train.retrieval.encoding import TextEncoder
from modernbert_jax.train.retrieval.mining import encoded, stages
from modernbert_jax.train.retrieval.mining.config import Mining
from modernbert_jax.train.retrieval.mining.mine import mine

folder, output, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
encoded.TEXTS, stages.SEARCHED, stages.RANKED = 16, 8, 4
encoded = 0


def encode(texts, side):
    global encoded
    encoded += len(texts)
    return np.stack([np.random.default_rng([*t.encode()]).normal(size=4) for t in texts])


def publish(*arguments, whole=files.os.replace):
    global steps
    if (steps := steps - 1) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments)


Path.replace = lambda self, target: publish(self, target)
Path.rename = lambda self, target: publish(self, target, whole=os.rename)
os.link = lambda *arguments, link=os.link: publish(*arguments, whole=link)
fake = SimpleNamespace(
    similarity="dot",
    facts=lambda side: {},
    encode=encode,
    best=lambda queries, k: TopK(queries, k, "dot"),
    pairs=lambda queries, documents: (queries * documents).sum(-1),
)
TextEncoder.load = lambda *_, **__: fake
mine(Mining(
    model=str(folder / "model"), data=str(folder / "data.jsonl"),
    corpus=str(folder / "corpus.jsonl"), output=folder / output, sampling="random", range_max=9,
))
print(encoded)
"""


@pytest.mark.slow
def test_a_killed_run_is_resumed_at_every_file_that_it_writes(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("x")
    write("data.jsonl", [{"query": f"q {i}", "positive": f"p {i}"} for i in range(20)])
    write("corpus.jsonl", [{"text": f"text {i}"} for i in range(60)])

    def run(output, steps):
        command = [sys.executable, "-c", PROGRAM, tmp_path, output, str(steps)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("whole.jsonl", 0).returncode == 0
    kills = 0
    while (done := run("again.jsonl", 2)).returncode:
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (tmp_path / "again.jsonl").exists()
        kills += 1
    assert kills > 5 and done.stdout.strip() == "0"
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    names = {"whole.jsonl", "again.jsonl"}
    assert left == {"model", "data.jsonl", "corpus.jsonl", *names, *(f"{n}.cache" for n in names)}
