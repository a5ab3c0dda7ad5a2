"""Vectors of documents in the paper's efficiency protocol: our side.

The protocol (Warner et al. 2024, section 4.2) takes 8,192 documents a set, of a fixed length or of
normally distributed ones, and counts real tokens per second of the whole set. Here a set is cut to
what a budget allows; lengths are the paper's.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.inference import runner
from modernbert_jax.model import Encoder
from modernbert_jax.sharding import MeshShape

from ..registry import register
from ..results import Number, Numbers, Result, attempt
from ..scale import Scale

DTYPE: Dtype = "bfloat16"

SETS = {
    "short, fixed": (512, 0, 512, 512, 2048),
    "short, variable": (256, 64, 32, 476, 4096),
    "long, fixed": (8192, 0, 8192, 8192, 128),
    "long, variable": (4096, 1024, 171, 7624, 256),
}
"""Mean, standard deviation, least and most tokens of the documents, and how many are encoded."""

PASSES = 3
"""Passes over a set, of which the mean counts; the paper takes 10."""

BATCH_TOKENS = 65536
"""Tokens of a batch of ours."""


@register("encoding", group="encoding", order=50, seconds=45)
def encoding(scale: Scale) -> Iterator[Result]:
    """Mean pooling over packed rows, with every transfer between host and device."""
    config = scale.model("base")
    nothing = np.zeros((1, 64), np.int32)
    encoder = Encoder(config)
    params = jax.jit(encoder.init)(jax.random.key(0), nothing, nothing, nothing)["params"]
    mesh = MeshShape(data=1).make(jax.devices()[:1])
    run = runner.BatchRunner(config, Runtime(dtype=DTYPE), "none", 0, None, mesh).run

    def encode(documents: list[list[int]]) -> Any:
        inputs = [runner.Document(ids) for ids in documents]
        return run("pooled", params, inputs, BATCH_TOKENS, how="mean")

    for name in SETS:
        labels = {"set": name, "documents": f"{count(name, scale):,}", "type": DTYPE, "by": "ours"}
        measure = partial(speed, encode, name, scale)
        yield attempt(f"{name} ours", labels, measure)


def speed(encode, name: str, scale: Scale) -> Numbers:
    """Real tokens per second, the mean of several passes after one that compiles."""
    documents = draw(name, scale)
    encode(documents)
    began = time.perf_counter()
    passes = 1 if scale.tiny else PASSES
    for _ in range(passes):
        encode(documents)
    taken = (time.perf_counter() - began) / passes
    return {
        "speed": Number(sum(map(len, documents)) / taken, "tokens/s"),
        "time": Number(1e3 * taken, "ms"),
    }


def draw(name: str, scale: Scale) -> list[list[int]]:
    """Random token ids of a set's documents."""
    mean, deviation, least, most, _ = SETS[name]
    rng = np.random.default_rng(0)
    shrink = 64 if scale.tiny else 1
    lengths = rng.normal(mean, deviation, count(name, scale)).clip(least, most) / shrink
    return [rng.integers(5, 2000, max(1, int(n))).tolist() for n in lengths]


def count(name: str, scale: Scale) -> int:
    """Documents of a set."""
    return 4 if scale.tiny else SETS[name][-1]
