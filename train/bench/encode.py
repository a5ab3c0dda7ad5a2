"""Hidden states of documents on the CPU, beside transformers with sdpa.

Both sides load the same random weights, compute in float32 with two threads each in processes of
their own, and have to find the same hidden states. They take turns, as many as asked for but
none after a minute of them, and the fastest turn counts.
"""

import contextlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import MaskedLM
from modernbert_jax.model import Encoder

from . import Measurement, Options
from .turns import again, answer, worker

TOLERANCE = 1e-4
"""Between hidden states of the two sides, which are of the order of 1."""

ENOUGH = 60.0
"""Seconds of turns after which no further one begins."""

Documents = list[list[int]]


class EncodeWorkload(NamedTuple):
    """What a turn computes."""

    lengths: list[int]
    """Of the documents."""
    peers: tuple[str, ...]
    """To compare with."""
    axis: str = "data"
    """Of the mesh of two devices that the CPU poses as for us."""


WORKER = Path(__file__).with_name("encode_worker.py")

PEERS = {
    "peer": "transformers, sdpa, documents in the given order",
    "peer_sorted": "transformers, sdpa, documents sorted by length",
}


def measure(options: Options) -> Iterator[Measurement]:
    """Real tokens per second, and memory, of ModernBERT base.

    Memory is the peak of the process, and what of it was not there yet when the model was loaded.

    Raises:
        RuntimeError: the sides disagree.
    """
    yield from compare(ModernBertConfig.preset("base"), workloads(), options.repeats)


def workloads(seed: int = 0) -> dict[str, EncodeWorkload]:
    """By name. Devices share rows where there are several, and heads in a single long one."""
    mixed = np.random.default_rng(seed).lognormal(np.log(120), 0.8, 64).clip(16, 512)
    return {
        "8 full rows of 512 tokens": EncodeWorkload([512] * 8, ("peer",)),
        "64 documents of 16 to 512 tokens": EncodeWorkload(
            mixed.astype(int).tolist(), tuple(PEERS)
        ),
        "one document of 8,192 tokens": EncodeWorkload([8192], ("peer",), axis="tensor"),
    }


def peer_installed() -> bool:
    """Whether there is anything to compare with."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def compare(
    config: ModernBertConfig, given: dict[str, EncodeWorkload], repeats: int
) -> Iterator[Measurement]:
    """Measures workloads; without a peer where PyTorch or transformers is not installed."""
    there = peer_installed()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_random(Encoder(config), "none", model)
        for name, workload in given.items():
            lengths = workload.lengths
            rng = np.random.default_rng(len(lengths))
            documents = [rng.integers(0, config.vocab_size, n).tolist() for n in lengths]
            peers = workload.peers if there else ()
            turns = _take_turns(
                model, documents, ("ours", *peers), repeats, Path(folder), workload.axis
            )
            speed = {s: sum(lengths) / min(t["seconds"] for t in turns[s]) for s in turns}
            for peer in peers or (None,):
                told = PEERS.get(peer, "")
                yield Measurement(
                    name=name,
                    unit="tokens/s",
                    ours=speed["ours"],
                    peer=speed.get(peer),
                    peer_name=told,
                )
            for key, what in (("gigabytes", "peak memory"), ("working", "of it beside the model")):
                memory = {s: max(t[key] for t in turns[s]) for s in turns}
                yield Measurement(
                    name=f"{name}, {what} (less is better)",
                    unit="GB",
                    ours=memory["ours"],
                    peer=memory.get("peer"),
                    peer_name=PEERS["peer"] if peers else "",
                )


def write_random(module: Encoder | MaskedLM, head: str, path: Path) -> None:
    """Writes a checkpoint of a module with random weights."""
    nothing = np.zeros((1, 64), np.int32)
    params = jax.jit(module.init)(jax.random.key(0), nothing, nothing, nothing)["params"]
    convert.save(convert.Checkpoint(config=module.config, params=params, head=head), path)


def _take_turns(
    model: Path, documents: Documents, sides: tuple[str, ...], repeats: int, folder: Path, axis: str
) -> dict[str, list[dict[str, float]]]:
    """Seconds and gigabytes of every turn, after one each that does not count."""
    file = folder / "documents.json"
    file.write_text(json.dumps(documents))
    with contextlib.ExitStack() as stack:
        workers, outputs = {}, {}
        for side in sides:
            output = folder / f"{side}.npy"
            workers[side] = stack.enter_context(worker(WORKER, side, model, file, output, axis))
            answer(side, workers[side])  # one loads and warms up at a time
            outputs[side] = np.load(output)
        for side, states in outputs.items():
            difference = float(np.abs(states - outputs["ours"]).max())
            if not difference <= TOLERANCE:
                raise RuntimeError(f"hidden states of {side} differ from ours by {difference:.1e}")
        turns: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        began = time.monotonic()
        for turn in range(repeats):
            if turn and time.monotonic() - began >= ENOUGH:
                break
            for side, process in workers.items():
                turns[side].append(again(side, process))
    return turns
