"""The runner: order, windows of a stream, few programs, and any mesh."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from modernbert_jax import devices
from modernbert_jax.config import Runtime
from modernbert_jax.inference.runner import BatchRunner, Document
from modernbert_jax.model import Encoder

CONFIG = tiny.config(num_hidden_layers=2)


@pytest.fixture(scope="module")
def params():
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    tree = jax.eval_shape(Encoder(CONFIG).init, jax.random.key(0), ids, ids, ids)
    return tiny.randomised(tree["params"])


@pytest.fixture(scope="module")
def runner():
    return BatchRunner(CONFIG, Runtime(), "none", 0, None, devices.local_mesh())


def documents(count, seed=0, high=90):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, high, count)
    return [Document(rng.integers(0, CONFIG.vocab_size, n).tolist()) for n in lengths]


def streamed(runner, params, stream, tokens):
    windows = runner.windows("pooled", params, stream, 256, tokens=tokens, how="mean")
    return (vector for window in windows for vector in window)


def test_packed_equals_alone_in_order(runner, params):
    some = documents(12)
    together = runner.run("hidden", params, some, 256)
    for document, states in zip(some, together, strict=True):
        (alone,) = runner.run("hidden", params, [document])
        assert states.shape == (len(document.ids), CONFIG.hidden_size)
        np.testing.assert_allclose(states, alone, atol=1e-5)


def test_a_stream_gives_the_same_in_the_same_order(runner, params):
    some = documents(300)
    expected = runner.run("pooled", params, some, 256, how="mean")
    vectors = list(streamed(runner, params, iter(some), 1024))
    np.testing.assert_allclose(np.stack(vectors), expected, atol=1e-5)


def test_a_stream_is_read_as_far_as_it_is_needed(runner, params):
    """However long the stream, at most three windows of it are in memory."""
    read, window = 0, 1024

    def endless():
        nonlocal read
        rng = np.random.default_rng(0)
        while True:
            read += 1
            yield Document(rng.integers(0, CONFIG.vocab_size, 31).tolist())

    ahead = []
    for number, _ in zip(range(400), streamed(runner, params, endless(), window), strict=False):
        ahead.append(read - number)
    per_window = window // 32
    assert max(ahead) <= 3 * per_window
    assert read <= 400 + 3 * per_window


def test_windows_share_programs(runner, params):
    list(streamed(runner, params, documents(900, 1), 1024))
    compiled = runner.programs["pooled"].compute._cache_size()
    list(streamed(runner, params, documents(900, 2), 1024))
    assert runner.programs["pooled"].compute._cache_size() <= compiled + 2 <= 12


def test_nothing_in_nothing_out(runner, params):
    assert runner.run("pooled", params, [], how="mean").shape == (0, CONFIG.hidden_size)
    assert list(streamed(runner, params, [], 100)) == []
    (states,) = runner.run("hidden", params, [Document([])])
    assert states.shape == (0, CONFIG.hidden_size)
    empty = list(streamed(runner, params, [Document([])] * 3, 2))
    assert len(empty) == 3 and not np.any(empty)


def test_parts_of_documents(runner, params):
    """Hidden tokens change nothing for the others, and only kept ones are returned."""
    (whole,) = runner.run("hidden", params, [Document([5, 6, 7])])
    kept = np.array([True, False, True, True, False])
    (states,) = runner.run("hidden", params, [Document([5, 6, 7, 8, 9], 3, kept)])
    assert states.shape == (3, CONFIG.hidden_size)
    np.testing.assert_allclose(states[:2], whole[[0, 2]], atol=1e-5)


def test_eight_devices():
    """All cores are used where `cores` exposes them, with the same results in the same order."""
    program = """
import jax, numpy as np, tiny
from modernbert_jax import UserError, devices
from modernbert_jax.config import Runtime
from modernbert_jax.inference.runner import BatchRunner, Document
from modernbert_jax.model import Encoder
from modernbert_jax.sharding import MeshShape

devices.expose_cores(8)
mesh = devices.local_mesh()
config = tiny.config(num_hidden_layers=1)
ids = np.zeros((1, 8), np.int32)
tree = jax.eval_shape(Encoder(config).init, jax.random.key(0), ids, ids, ids)
params = tiny.randomised(tree["params"])
rng = np.random.default_rng(0)
some = [Document(rng.integers(0, 96, n).tolist()) for n in rng.integers(1, 60, 80)]
results = [
    np.stack([v for w in BatchRunner(config, Runtime(), "none", 0, None, m).windows(
        "pooled", params, iter(some), 128, tokens=t, how="mean") for v in w])
    for m, t in ((mesh, None), (mesh, 600), (MeshShape().make(jax.devices()[:1]), None))
]
try:
    devices.expose_cores(3)
except UserError as error:
    refused = "before the first jax computation" in str(error)
print(mesh.shape["data"], *(np.abs(r - results[2]).max() < 1e-5 for r in results), refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(tiny.__file__).parent)},
    )
    assert done.stdout.split() == ["8", "True", "True", "True", "True"], done.stdout + done.stderr
