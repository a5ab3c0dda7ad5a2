"""Hidden states of documents on the CPU, beside transformers with sdpa.

Both sides load the same random weights, compute in float32 with two threads in processes of their
own, and must agree on the hidden states. They take turns, and the fastest turn counts. No round
begins after a minute.
"""

import importlib.util
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import MaskedLM
from modernbert_jax.model import Encoder

from . import Measurement, Options, compared
from .turns import take_turns

TOLERANCE = 1e-4
"""Maximum difference between hidden states of the two sides, which are of the order of 1."""

ENOUGH = 60.0
"""Seconds of turns after which no further round begins."""

WORKER = Path(__file__).with_name("encode_worker.py")

PEERS = {
    "peer": "transformers, sdpa, documents in the given order",
    "peer_sorted": "transformers, sdpa, documents sorted by length",
}


class EncodeWorkload(NamedTuple):
    """The documents of a turn."""

    lengths: list[int]
    """Tokens of each document."""
    peers: tuple[str, ...]
    """Peers to compare with: keys of `PEERS`."""
    axis: str = "data"
    """Axis of our mesh of two virtual devices."""


def measure(options: Options) -> Iterator[Measurement]:
    """Measure real tokens per second, and memory, of ModernBERT base.

    Memory is the peak of the process, and the part of it beyond the loaded model.

    Raises:
        RuntimeError: the sides disagree.
    """
    yield from compare(ModernBertConfig.preset("base"), workloads(), options.repeats)


def workloads(seed: int = 0) -> dict[str, EncodeWorkload]:
    """Workloads by name. Devices divide rows if there are several, or heads of a long one."""
    mixed = np.random.default_rng(seed).lognormal(np.log(120), 0.8, 64).clip(16, 512).astype(int)
    return {
        "8 full rows of 512 tokens": EncodeWorkload([512] * 8, ("peer",)),
        "64 documents of 16 to 512 tokens": EncodeWorkload(mixed.tolist(), tuple(PEERS)),
        "one document of 8,192 tokens": EncodeWorkload([8192], ("peer",), axis="tensor"),
    }


def peer_installed() -> bool:
    """Whether PyTorch and transformers are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def compare(
    config: ModernBertConfig, workloads: dict[str, EncodeWorkload], repeats: int
) -> Iterator[Measurement]:
    """Measure workloads; without a peer if PyTorch or transformers is not installed."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_random(Encoder(config), "none", folder / "model")
        for name, workload in workloads.items():
            lengths = workload.lengths
            rng = np.random.default_rng(len(lengths))
            documents = [rng.integers(0, config.vocab_size, n).tolist() for n in lengths]
            (folder / "documents.json").write_text(json.dumps(documents))
            sides = ("ours", *(workload.peers if peer_installed() else ()))
            _, turns = take_turns(WORKER, (folder, workload.axis), sides, repeats, enough=ENOUGH)
            states = {side: np.load(folder / f"{side}.npy") for side in sides}
            for side in sides:
                difference = float(np.abs(states[side] - states["ours"]).max())
                if not difference <= TOLERANCE:
                    raise RuntimeError(
                        f"hidden states of {side} differ from ours by {difference:.1e}"
                    )
            speed = {s: sum(lengths) / min(t["seconds"] for t in turns[s]) for s in sides}
            yield from compared(name, "tokens/s", speed, PEERS)
            for key, what in (("gigabytes", "peak memory"), ("working", "of it beside the model")):
                memory = {s: max(t[key] for t in turns[s]) for s in sides}
                label = f"{name}, {what} (less is better)"
                yield from compared(label, "GB", memory, {"peer": PEERS["peer"]})


def write_random(module: Encoder | MaskedLM, head: str, path: Path) -> None:
    """Write a checkpoint of a module with random weights."""
    zeros = np.zeros((1, 64), np.int32)
    params = jax.jit(module.init)(jax.random.key(0), zeros, zeros, zeros)["params"]
    convert.save(convert.Checkpoint(config=module.config, params=params, head=head), path)
