"""Training steps on the CPU, beside transformers with PyTorch's AdamW.

Both sides start from the same random weights, compute in float32 with two threads in processes of
their own, and must agree on loss and gradient. They take turns, except for the largest model, and
the fastest turn counts. A turn is a few optimizer steps: ours the compiled step of a run on packed
rows, with masks, norms and guard; the peer's masks, forward, backward and fused AdamW on padded
batches.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import MaskedLM

from . import Measurement, Options, compared
from .encode import peer_installed, write_random
from .turns import take_turns

TOLERANCE = 1e-4
"""Maximum relative difference between losses, and gradient norms, of the two sides."""

PEERS = {
    "peer": "transformers, sdpa, fused AdamW",
    "peer_sparse": "the same, logits at masked tokens only",
}

WORKER = Path(__file__).with_name("train_worker.py")


class TrainWorkload(NamedTuple):
    """The documents and batches of a turn."""

    lengths: list[int]
    """Tokens of each available document."""
    rows: int
    """Rows of our batch."""
    capacity: int
    """Tokens per row of our batch."""
    documents: int
    """Documents of the peer's batch, padded to the longest."""
    steps: int
    """Optimizer steps of a turn."""
    axis: str = "data"
    """Axis of our mesh of two virtual devices: `pretrain --cpu-devices 2`."""
    together: bool = True
    """Whether the sides take turns. Two processes that train a base model do not fit in 24 GB."""


def measure(options: Options) -> Iterator[Measurement]:
    """Measure real tokens per second, and per second of a core, of three sizes of model.

    Raises:
        RuntimeError: the sides disagree.
    """
    for preset, steps, rows, axis, together in (
        ("nano", 8, 4, "data", True),
        ("ettin-17m", 4, 4, "fsdp", True),
        ("base", 1, 2, "fsdp", False),
    ):
        config = ModernBertConfig.preset(preset)
        for name, workload in workloads(steps, rows, axis, together).items():
            yield from compare(f"{preset}, {name}", config, workload, options.repeats)


def workloads(steps: int, rows: int, axis: str, together: bool = True) -> dict[str, TrainWorkload]:
    """Workloads by name. Any 16 consecutive mixed lengths have short and long ones alike."""
    quantiles = (np.arange(256) + 0.5) / 256
    lengths = np.exp([np.log(120) + 0.8 * NormalDist().inv_cdf(q) for q in quantiles])
    mixed = lengths.clip(16, 512).astype(int).reshape(16, 16).T.ravel().tolist()
    full, how = [1024] * rows * steps, (steps, axis, together)
    return {
        "documents of 16 to 512 tokens": TrainWorkload(mixed, rows, 1024, 16, *how),
        "full rows of 1,024 tokens": TrainWorkload(full, rows, 1024, rows, *how),
    }


def compare(
    name: str, config: ModernBertConfig, workload: TrainWorkload, repeats: int
) -> Iterator[Measurement]:
    """Measure a workload; without a peer if PyTorch or transformers is not installed."""
    sides = ("ours", *(PEERS if peer_installed() else ()))
    with tempfile.TemporaryDirectory() as folder:
        model, work = Path(folder) / "model", Path(folder) / "work.npz"
        write_random(MaskedLM(config), "masked_lm", model)
        _write_work(config, workload, work)
        ready, turns = take_turns(WORKER, (model, work), sides, repeats, workload.together)
        for side, first in ready.items():
            for what in ("loss", "grad_norm"):
                difference = abs(first[what] / ready["ours"][what] - 1)
                if not difference <= TOLERANCE:
                    raise RuntimeError(f"{what} of {side} differs from ours by {difference:.1e}")
        for seconds, unit in (("seconds", "tokens/s"), ("cpu_seconds", "tokens/CPU s")):
            best = {side: max(t["tokens"] / t[seconds] for t in turns[side]) for side in turns}
            yield from compared(name, unit, best, PEERS)


def _write_work(config: ModernBertConfig, workload: TrainWorkload, path: Path) -> None:
    """Write the concatenated documents, and inputs and labels on which both sides must agree."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, config.vocab_size, sum(workload.lengths), dtype=np.int32)
    probe = ids[:256].reshape(2, 128)
    labels = np.where(rng.random(probe.shape) < 0.3, probe, -100)
    inputs = np.where(labels == -100, probe, 4)
    np.savez(path, ids=ids, inputs=inputs, labels=labels, **workload._asdict())
